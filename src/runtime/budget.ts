/** One bound on what this process holds whole for clients: manifests, lists, answers. It counts bytes that came, not bytes promised. */
import { Shortage } from './shortage.ts'

/** Sixteen of the longest manifests or lists. */
const defaultBytes = 64 * 1024 * 1024

export class Budget {
  readonly #maxBytes: number
  #bytes = 0

  constructor(maxBytes = defaultBytes) {
    this.#maxBytes = maxBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Takes room, to be released later; false if there is not enough in this share of all. */
  take(bytes: number, share = 1): boolean {
    if (this.#bytes + bytes > this.#maxBytes * share) return false
    this.#bytes += bytes
    return true
  }

  /** Takes room even if there is not enough: for what is small, and there already. */
  add(bytes: number): void {
    this.#bytes += bytes
  }

  release(bytes: number): void {
    this.#bytes -= bytes
  }
}

/** What one request holds of the budget, until its answer has left. What several requests share has a room of its own. */
export class Room {
  readonly #budget: Budget
  #until: Promise<unknown> | undefined
  #shared: Room[] | undefined
  #bytes = 0
  #users = 1

  /** It ends by itself when `until` has settled. */
  constructor(budget: Budget, until?: Promise<unknown>) {
    this.#budget = budget
    this.#until = until
  }

  /** Whether these bytes, which have come, may be held. */
  take(bytes: number, share?: number): boolean {
    if (this.#users === 0 || !this.#budget.take(bytes, share)) return false
    this.#hold(bytes)
    return true
  }

  add(bytes: number): void {
    if (this.#users === 0) return
    this.#budget.add(bytes)
    this.#hold(bytes)
  }

  /** For a part that ends before all the rest. */
  part(): Room {
    return new Room(this.#budget)
  }

  /** From now on it also holds what is in `other`. */
  share(other: Room): void {
    if (this.#users === 0 || other.#users === 0) return
    other.#users++
    this.#shared ??= []
    this.#shared.push(other)
    this.#hold(0)
  }

  /** One of its users needs it no more. */
  end(): void {
    if (this.#users === 0 || --this.#users > 0) return
    this.#budget.release(this.#bytes)
    for (const one of this.#shared ?? []) one.end()
  }

  /** Most requests hold nothing: only one that does waits for its end. */
  #hold(bytes: number): void {
    this.#bytes += bytes
    this.#until?.then(() => this.end())
    this.#until = undefined
  }
}

/** Room until an answer has left; undefined if the runtime does not tell when. */
export const roomUntil = (sent: Promise<unknown> | undefined, budget: Budget) => sent && new Room(budget, sent)

/** Too much is held whole at the moment. */
export const noRoom = () => new Shortage('memory', 'too much is held whole')
