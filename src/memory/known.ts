/** What was learned, and when: it is used for longer than its time, if it is asked anew meanwhile. */
import { bounded } from '../runtime/bounded.ts'

/** An entry is forgotten after this many times as long as it holds: nobody has used it for long. */
export const lasting = 10

interface Entry<V> {
  value: V
  learnedAt: number
  askedAt: number
  /** How long it holds without being asked anew. */
  ttlMs: number
}

export class Known<V> {
  readonly #ttlMs: number
  readonly #maxTtlMs: number
  readonly #now: () => number
  readonly #entries

  /**
   * `ttlMs`: how long it holds without being asked anew; 0 for nothing. What was asked anew and is still so holds twice as long as before,
   * but no longer than `maxTimes` of `ttlMs`.
   */
  constructor(maxEntries: number, ttlMs: number, now: () => number, maxTimes = 1) {
    this.#ttlMs = ttlMs
    this.#maxTtlMs = ttlMs * maxTimes
    this.#now = now
    this.#entries = bounded<Entry<V>>(maxEntries, ttlMs * lasting, now)
  }

  get(key: string): V | undefined {
    return this.#entries.get(key)?.value
  }

  /** The same with its age in milliseconds, for people. It counts as no use. */
  peek(key: string): { value: V; ageMs: number } | undefined {
    const entry = this.#entries.peek(key)
    return entry && { value: entry.value, ageMs: this.#now() - entry.learnedAt }
  }

  set(key: string, value: V): void {
    if (this.#ttlMs === 0) return
    const now = this.#now()
    const before = this.#entries.peek(key)
    let ttlMs = this.#ttlMs
    if (before?.value === value) {
      const isStill = now - before.learnedAt > before.ttlMs
      ttlMs = isStill ? Math.min(before.ttlMs * 2, this.#maxTtlMs) : before.ttlMs
    }
    this.#entries.set(key, { value, learnedAt: now, askedAt: now, ttlMs }, { ttl: ttlMs * lasting })
  }

  delete(key: string): void {
    this.#entries.delete(key)
  }

  /** Whether it was learned after that moment. */
  isSince(key: string, moment: number): boolean {
    return (this.#entries.peek(key)?.learnedAt ?? Number.NEGATIVE_INFINITY) > moment
  }

  /** Whether it is to be asked anew. Who hears yes has to: until its time is over again, all others hear no. */
  isDue(key: string): boolean {
    const entry = this.#entries.get(key)
    const now = this.#now()
    if (!entry || now - entry.askedAt <= entry.ttlMs) return false
    entry.askedAt = now
    return true
  }
}
