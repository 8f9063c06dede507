/** Spreads what nobody is in need of, so that it takes no time from all else. */
interface PaceSettings {
  perInterval: number
  intervalMs: number
  /** How far ahead one may have to wait. */
  maxIntervals: number
}

export class Pace {
  readonly #settings: PaceSettings
  readonly #now: () => number
  /** The interval of the next one, and how many that interval has already. */
  #interval = 0
  #count = 0

  constructor(settings: PaceSettings, now: () => number) {
    this.#settings = settings
    this.#now = now
  }

  /** How long the next one has to wait. If all intervals are full, it does not wait at all: it would take up room. */
  delayMs(): number {
    const { perInterval, intervalMs, maxIntervals } = this.#settings
    const now = this.#now()
    const current = Math.floor(now / intervalMs)
    if (this.#interval < current) this.#take(current)
    if (this.#count === perInterval) {
      if (this.#interval === current + maxIntervals) return 0
      this.#take(this.#interval + 1)
    }
    this.#count++
    return Math.max(0, this.#interval * intervalMs - now)
  }

  #take(interval: number): void {
    this.#interval = interval
    this.#count = 0
  }
}
