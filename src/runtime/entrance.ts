/** While connections come in a burst, their first requests begin one after the other, by turns of their sources. */
import { setImmediate } from 'node:timers'

/** Turns of the event loop in a row that bring a connection: more are a burst. */
const maxInRow = 32
/** In a burst at most one request begins in this time; the rest of it goes to accepting. If a turn takes longer, one begins in each. */
const msPerRequest = 8
/** Once the next request in turn has waited so long, one begins in each turn of the event loop: as many as connections come. */
const patientMs = 1000
/** In a turn that is not of a burst this many may begin. */
const perTurn = 8

interface Waiting {
  since: number
  begin: (isHere: boolean) => void
  hasLeft: () => boolean
}

/**
 * Node accepts one connection in a turn of the event loop, and a request takes as long as to accept ten. So a client whose connection is
 * behind a thousand others would wait until most of their requests are answered. Here they are accepted first. After each first request
 * that begins, its source waits until every other source has begun one. Later requests of a connection do not wait.
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
  /** When a request last began in a burst. */
  #lastBegun = 0

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
      waiting.push({ since: this.#now(), begin, hasLeft })
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
    const isBurst = this.#hasCome && this.#inRow > maxInRow
    this.#begin(isBurst ? this.#inBurst() : perTurn)
    if (!this.#hasCome) this.#inRow = 0
    this.#hasCome = false
    if (this.#inRow > 0 || this.#sources.size > 0) this.#count()
  }

  /** How many requests may begin in this turn of a burst. */
  #inBurst(): number {
    const now = this.#now()
    const [longest] = this.#sources.values()
    const isLate = longest?.[0] !== undefined && now - longest[0].since > patientMs
    if (now - this.#lastBegun < msPerRequest && !isLate) return 0
    this.#lastBegun = now
    return 1
  }

  #begin(atMost: number): void {
    for (let begun = 0; begun < atMost; ) {
      const [next] = this.#sources
      if (!next) return
      const [source, waiting] = next
      const { begin, hasLeft } = waiting.shift() as Waiting
      this.#sources.delete(source)
      if (waiting.length > 0) this.#sources.set(source, waiting)
      const isHere = !hasLeft()
      if (isHere) begun++
      begin(isHere)
    }
  }
}
