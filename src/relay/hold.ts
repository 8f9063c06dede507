/** Holds a body in memory, as far as there is room: counted in bytes that came, not in bytes that were promised. */
import type { Budget } from '../memory/budget.ts'

/** A body that is held whole, or the same bytes as a stream; `bytes` of the budget are to be released afterwards. */
export type Held = { bytes: number } & ({ whole: Uint8Array<ArrayBuffer> } | { rest: AsyncIterable<Uint8Array> })

/** Reads a body to its end, or until the budget is used up; undefined if it breaks, and nothing is held then. */
export async function hold(body: AsyncIterable<Uint8Array>, budget: Budget): Promise<Held | undefined> {
  const reader = body[Symbol.asyncIterator]()
  const chunks: Uint8Array[] = []
  let bytes = 0
  try {
    for (;;) {
      const { done, value } = await reader.next()
      if (done) return { bytes, whole: new Uint8Array(Buffer.concat(chunks)) }
      chunks.push(value)
      if (!budget.take(value.byteLength)) return { bytes, rest: continued(chunks, reader) }
      bytes += value.byteLength
    }
  } catch {
    budget.release(bytes)
    return undefined
  }
}

async function* continued(begun: Uint8Array[], reader: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* begun
  for (let next = await reader.next(); !next.done; next = await reader.next()) yield next.value
}
