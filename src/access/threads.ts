/** The threads that compare passwords with hashes, and how long that takes them. */
import { once } from 'node:events'
import { setTimeout } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'

/** How much of an earlier, longer time still counts after a shorter one. */
const decay = 0.9
/** An imitation takes longer, so that hardly any comparison ends after it. */
const factor = 1.25

export class Threads {
  readonly #idle: Worker[] = []
  /** Milliseconds of a comparison of cost 0; 0 before the first one. */
  #unitMs = 0

  /** Whether there was a comparison. */
  get isMeasured(): boolean {
    return this.#unitMs > 0
  }

  /** Whether the password is of the first hash. All `hashes` together take as long as one of this cost. */
  async compare(password: string, hashes: string[], cost: number): Promise<boolean> {
    const thread = this.#idle.pop() ?? new Worker(new URL('./bcrypt.js', import.meta.url))
    thread.unref()
    const answer = once(thread, 'message')
    thread.postMessage([password, hashes])
    const [[isRight, milliseconds]] = await answer
    this.#idle.push(thread)
    this.#unitMs = Math.max(milliseconds / 2 ** cost, this.#unitMs * decay)
    return isRight
  }

  /** Takes as long as a comparison of this cost takes now, and costs nothing. */
  async imitate(cost: number): Promise<void> {
    // A timer may fire a little early.
    await setTimeout(Math.ceil(this.#unitMs * 2 ** cost * factor) + 1)
  }
}
