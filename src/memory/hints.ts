/** Who has what, as far as it was seen lately: it decides who is asked first. */

import type { Answer, Registry } from '../registry/answer.ts'
import { isMissing } from '../registry/verdict.ts'
import { bounded } from '../runtime/bounded.ts'
import { Known } from './known.ts'
import type { Reading } from './reading.ts'

/** Entries of each kind; one takes a few hundred bytes. */
const maxEntries = 20_000
/** A question may have 64 KB of Accept. A longer one than this is not remembered. */
export const maxQuestionLength = 2048

export class Hints {
  readonly #isOn: boolean
  /** Which public registry lacked what a question asks for. */
  readonly #lacking
  /** Which registry last served a name. */
  readonly #serving
  /** Names with a manifest or a blob that the public registry served. */
  readonly #public
  /** Tags that nothing is known of, and that a public registry was asked for lately. */
  readonly #asked

  /** `ttlMs`: how long a hint holds without being asked anew; 0 for none. */
  constructor(ttlMs: number, now: () => number) {
    this.#isOn = ttlMs > 0
    this.#lacking = new Known<Registry>(maxEntries, ttlMs, now)
    this.#serving = new Known<Registry>(maxEntries, ttlMs, now)
    this.#public = bounded<true>(maxEntries, ttlMs, now)
    this.#asked = bounded<true>(maxEntries, ttlMs, now)
  }

  get isOn(): boolean {
    return this.#isOn
  }

  /** The registry that last served the name, if the read is by digest: its content is the same at every registry. */
  serving({ matched, name }: Reading): Registry | undefined {
    return matched.digest ? this.#serving.get(name) : undefined
  }

  /** The public registry that lacked it, if it said so after that moment. */
  lacking({ question }: Reading, since = Number.NEGATIVE_INFINITY): Registry | undefined {
    return this.#lacking.isSince(question, since) ? this.#lacking.get(question) : undefined
  }

  /** The same for people, with its age. */
  peekLacking({ question }: Reading, since = Number.NEGATIVE_INFINITY) {
    return this.#lacking.isSince(question, since) ? this.#lacking.peek(question) : undefined
  }

  /**
   * Whether to ask the public registry for a tag now. At most once in its time; never for a digest, whose content cannot change.
   * `isGuessed`: hosted was asked first, though nothing is known of this tag.
   */
  isDue({ matched, question }: Reading, isGuessed: boolean): boolean {
    if (matched.digest) return false
    if (this.#lacking.get(question)) return this.#lacking.isDue(question)
    if (!isGuessed || question.length > maxQuestionLength || this.#asked.has(question)) return false
    this.#asked.set(question, true)
    return true
  }

  /** Learns from an answer of a lookup. */
  learn({ matched, name, question }: Reading, answer: Answer): void {
    if (!this.#isOn) return
    const { from, verdict } = answer
    if (verdict === 'found') this.#serving.set(name, from)
    // What hosted lacks now, the next push may bring.
    if (from.role !== 'public') return
    if (verdict === 'found' && matched.route.entity !== 'tags') this.#public.set(name, true)
    if (verdict === 'found') this.#lacking.delete(question)
    else if (isMissing(answer) && question.length <= maxQuestionLength) this.#lacking.set(question, from)
  }

  /** Whether a name was read from the public registry lately. */
  isPublic(name: string): boolean {
    return this.#public.has(name)
  }

  /** To be called when a registry was seen to have a manifest or a blob of a name. */
  sawAt({ role }: Registry, name: string): void {
    if (role === 'public') this.#public.set(name, true)
  }
}
