/** Holds a body in memory, as far as there is room: counted in bytes that came, not in bytes that were promised. */
import type { Room } from '../runtime/budget.ts'

/** A body that is held whole, or the same bytes as a stream. */
export type Held = { whole: Uint8Array<ArrayBuffer> } | { rest: AsyncIterable<Uint8Array> }

/** Whoever sends a body may still be a stranger, so the rest of the room is for what registries send. */
const share = 1 / 2

/** Reads a body to its end, or until there is no room; undefined if it breaks. `late`: if it has not come whole after `seconds`. */
export async function hold(
  body: AsyncIterable<Uint8Array>,
  room: Room | undefined,
  seconds: number,
): Promise<Held | 'late' | undefined> {
  const reader = body[Symbol.asyncIterator]()
  const chunks: Uint8Array[] = []
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(resolve, seconds * 1000, 'late')
  })
  try {
    for (;;) {
      const next = await Promise.race([reader.next(), late])
      if (next === 'late') return next
      if (next.done) return { whole: new Uint8Array(Buffer.concat(chunks)) }
      chunks.push(next.value)
      if (room && !room.take(next.value.byteLength, share)) return { rest: continued(chunks, reader) }
    }
  } catch {
    return undefined
  } finally {
    clearTimeout(timer)
  }
}

async function* continued(begun: Uint8Array[], reader: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* begun
  for (let next = await reader.next(); !next.done; next = await reader.next()) yield next.value
}
