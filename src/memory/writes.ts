/** Which names were written to lately: what was read before a write is never given after it. */
import { bounded } from '../runtime/bounded.ts'

const maxNames = 20_000
/** How long a push of many layers may take. */
const pushMs = 3_600_000

export class Writes {
  readonly #now: () => number
  readonly #names
  #count = 0
  /** The highest generation of a name that was dropped to make room. */
  #forgotten = 0

  constructor(now: () => number) {
    this.#now = now
    this.#names = bounded<{ generation: number; until: number }>(maxNames, 0, now, {
      dispose: ({ generation }, _, reason) => {
        if (reason === 'evict') this.#forgotten = Math.max(this.#forgotten, generation)
      },
    })
  }

  /** Changes with every write to the name. It is part of the keys of all that is remembered of the name. */
  generationOf(name: string): number {
    return this.#names.get(name)?.generation ?? this.#forgotten
  }

  /** Whether somebody pushed into the name within the last hour. */
  isPushedTo(name: string): boolean {
    return this.#now() < (this.#names.get(name)?.until ?? 0)
  }

  /** To be called when a write was answered, before its client is. `isPush`: whether hosted took it. */
  record(name: string, isPush = true): void {
    const until = isPush ? this.#now() + pushMs : (this.#names.get(name)?.until ?? 0)
    this.#names.set(name, { generation: ++this.#count, until })
  }
}
