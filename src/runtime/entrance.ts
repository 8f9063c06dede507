/** While connections come in a burst, requests begin a few at a time, by turns of their sources. */
import { setImmediate } from 'node:timers'

/** Turns of the event loop in a row that bring a connection: more are a burst. */
const maxInRow = 32
/** In a burst one request begins in this time; the rest of it is for accepting. If turns take long by themselves, several begin in one. */
const msPerRequest = 4
/** At most so many begin in one turn. */
const perTurn = 8

interface Waiting {
  begin: (isHere: boolean) => void
  hasLeft: () => boolean
}

/**
 * Node accepts one connection in a turn of the event loop, and a request costs as much as ten of these. So a client whose connection is
 * behind a thousand others would wait until most of their requests are answered. Here they are accepted first. After each of its
 * requests a source waits for one request of every other source.
 */
export class Entrance {
  /** Milliseconds. */
  readonly #now: () => number
  /** By source, the next one first; of each the oldest first. */
  readonly #sources = new Map<string, Waiting[]>()
  /** Turns in a row that have brought a connection. */
  #inRow = 0
  #hasCome = false
  #isCounting = false
  /** How many requests may begin, and up to which moment that is counted. */
  #credit = 0
  #countedTo = 0

  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** A connection was accepted. */
  came(): void {
    if (!this.#hasCome) this.#inRow++
    this.#hasCome = true
    this.#count()
  }

  /** Undefined if a request may begin at once. Else settles when it is its turn; false if its client has left before. */
  turn(source: string, hasLeft: () => boolean): Promise<boolean> | undefined {
    if (this.#inRow <= maxInRow && this.#sources.size === 0) return undefined
    this.#count()
    return new Promise((begin) => {
      const waiting = this.#sources.get(source) ?? []
      waiting.push({ begin, hasLeft })
      this.#sources.set(source, waiting)
    })
  }

  #count(): void {
    if (this.#isCounting) return
    this.#isCounting = true
    setImmediate(() => this.#endTurn())
  }

  #endTurn(): void {
    this.#isCounting = false
    const now = this.#now()
    const isBurst = this.#hasCome && this.#inRow > maxInRow
    this.#credit = isBurst ? Math.min(perTurn, this.#credit + (now - this.#countedTo) / msPerRequest) : perTurn
    this.#countedTo = now
    this.#begin()
    if (!this.#hasCome) this.#inRow = 0
    this.#hasCome = false
    if (this.#inRow > 0 || this.#sources.size > 0) this.#count()
  }

  #begin(): void {
    while (this.#credit >= 1) {
      const [next] = this.#sources
      if (!next) break
      const [source, waiting] = next
      const { begin, hasLeft } = waiting.shift() as Waiting
      this.#sources.delete(source)
      if (waiting.length > 0) this.#sources.set(source, waiting)
      const isHere = !hasLeft()
      if (isHere) this.#credit--
      begin(isHere)
    }
    // What nobody used does not add up.
    this.#credit = Math.min(this.#credit, 1)
  }
}
