/** Which connections of clients stay open if there would be more than may be. */

/** One connection of a client. */
export interface Held {
  /** Whose it is: a network address. */
  readonly source: string
  /** When it last moved. */
  movedAt: number
  /** Whether it waits for its client: nothing is under way on it, or its client does not read what was sent. */
  waitsForClient: () => boolean
  /** Whether an answer has begun. */
  hasBegun: () => boolean
  close: () => void
}

/** How long a client may think, or not read, before its connection may be the first to go. */
const patientMs = 500

/**
 * One too many closes another one: of the source that has the most. A source with few connections is served, whatever another one opens.
 * Behind a balancer all have one source: then only that counts which connection waits for its client, and for how long.
 */
export class Connections {
  readonly #max: () => number
  readonly #now: () => number
  readonly #onClose: (open: number) => void
  /** By source. In each the one that has not moved for longest is the first. */
  readonly #sources = new Map<string, Set<Held>>()
  #size = 0

  /** `onClose`: called with how many are open for each one that is closed here. `now` is in milliseconds. */
  constructor(max: () => number, now: () => number, onClose: (open: number) => void) {
    this.#max = max
    this.#now = now
    this.#onClose = onClose
  }

  get size(): number {
    return this.#size
  }

  /** A connection has opened. It may be closed by this. */
  add(held: Held): void {
    const ofSource = this.#sources.get(held.source) ?? new Set()
    this.#sources.set(held.source, ofSource.add(held))
    this.#size++
    held.movedAt = this.#now()
    for (const max = this.#max(); this.#size > max; ) this.#closeOne()
  }

  /** Bytes were taken by its client, or have come from it. */
  moved(held: Held): void {
    const ofSource = this.#sources.get(held.source)
    if (!ofSource?.delete(held)) return
    held.movedAt = this.#now()
    ofSource.add(held)
  }

  delete(held: Held): void {
    const ofSource = this.#sources.get(held.source)
    if (!ofSource?.delete(held)) return
    this.#size--
    if (ofSource.size === 0) this.#sources.delete(held.source)
  }

  #closeOne(): void {
    let most = 0
    for (const { size } of this.#sources.values()) most = Math.max(most, size)
    let first: Candidate | undefined
    for (const ofSource of this.#sources.values()) {
      const candidate = ofSource.size === most ? this.#firstToGo(ofSource) : undefined
      if (candidate && (!first || goesBefore(candidate, first))) first = candidate
    }
    if (!first) return
    this.#onClose(this.#size)
    this.delete(first.held)
    first.held.close()
  }

  #firstToGo(of: Set<Held>): Candidate {
    const [longest] = of
    const since = this.#now() - patientMs
    let begun: Held | undefined
    for (const one of of) {
      if (one.movedAt <= since && one.waitsForClient()) return { held: one, rank: 0 }
      // A long answer rather than one that is just being asked for.
      if (!begun && one.hasBegun()) begun = one
      // All that follow have moved since.
      if (begun && one.movedAt > since) break
    }
    return begun ? { held: begun, rank: 1 } : { held: longest as Held, rank: 2 }
  }
}

/** The connection of a source that is the first to go. Of several sources, the one with the lowest rank goes. */
interface Candidate {
  held: Held
  rank: 0 | 1 | 2
}

/** Of equal ones it is the one that did not move for longest. */
function goesBefore(one: Candidate, other: Candidate): boolean {
  return one.rank === other.rank ? one.held.movedAt < other.held.movedAt : one.rank < other.rank
}
