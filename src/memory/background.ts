/** Questions that nobody waits for: a few at a time, and none once the process is to end. */

/** Asks; `signal` is aborted when the process is to end. */
type Ask = (signal: AbortSignal) => Promise<unknown>

const maxRunning = 8
const maxWaiting = 1000

export class Background {
  readonly #waiting: Ask[] = []
  readonly #running = new Set<AbortController>()
  #hasEnded = false

  /** Whether one more may wait its turn. */
  get hasRoom(): boolean {
    return !this.#hasEnded && this.#waiting.length < maxWaiting
  }

  /** Asks when it is its turn; not at all without room. */
  run(ask: Ask): void {
    if (!this.hasRoom) return
    this.#waiting.push(ask)
    this.#next()
  }

  /** From now on nothing is asked, and what is being asked is abandoned. */
  end(): void {
    this.#hasEnded = true
    this.#waiting.length = 0
    for (const abort of this.#running) abort.abort()
  }

  #next(): void {
    while (this.#running.size < maxRunning) {
      const ask = this.#waiting.shift()
      if (!ask) return
      const abort = new AbortController()
      this.#running.add(abort)
      ask(abort.signal).finally(() => {
        this.#running.delete(abort)
        this.#next()
      })
    }
  }
}
