/** Who has what, as far as it was seen lately: it may save a question, and never changes an answer. */

import type { Answer, Registry } from '../registry/answer.ts'
import { bounded } from '../runtime/bounded.ts'
import type { Reading } from './reading.ts'

/** Entries of each kind; one takes a few hundred bytes. */
const maxEntries = 20_000
/** A question may have 64 KB of Accept. A longer one than this is not remembered. */
export const maxQuestionLength = 2048

export class Hints {
  readonly #isOn: boolean
  /** Which public registry answered a question with "absent". */
  readonly #lacking
  /** Which registry last served a name. */
  readonly #serving
  /** Names with a manifest or a blob that the public registry served. */
  readonly #public

  /** `ttlMs`: how long a hint holds; 0 for none. */
  constructor(ttlMs: number, now: () => number) {
    this.#isOn = ttlMs > 0
    this.#lacking = bounded<Registry>(maxEntries, ttlMs, now)
    this.#serving = bounded<Registry>(maxEntries, ttlMs, now)
    this.#public = bounded<true>(maxEntries, ttlMs, now)
  }

  get isOn(): boolean {
    return this.#isOn
  }

  /**
   * The registry of `order` to ask first, if something is known about it.
   * - By digest: the registry that last served the name. The content of a digest is the same at every registry.
   * - By tag: not a public registry that lacked the tag.
   */
  first({ matched, name, question }: Reading, order: readonly Registry[]): Registry | undefined {
    const serving = matched.digest && this.#serving.get(name)
    if (serving) return serving
    const lacking = this.#lacking.get(question)
    return lacking && order.find((one) => one !== lacking)
  }

  /** Learns from an answer of a lookup. */
  learn({ matched, name, question }: Reading, { from, verdict }: Answer): void {
    if (!this.#isOn) return
    if (verdict === 'found') this.#serving.set(name, from)
    // What hosted lacks now, the next push may bring.
    if (from.role !== 'public') return
    if (verdict === 'found' && matched.route.entity !== 'tags') this.#public.set(name, true)
    if (verdict === 'found') this.#lacking.delete(question)
    else if (verdict === 'absent' && question.length <= maxQuestionLength) this.#lacking.set(question, from)
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
