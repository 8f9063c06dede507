/** Manifests kept whole, their digests checked: a read by digest needs no registry, one by tag no body. */

import type { Answer, Registry } from '../registry/answer.ts'
import { hasDigest } from '../registry/digest.ts'
import { bounded } from '../runtime/bounded.ts'
import type { Fields } from '../runtime/runtime.ts'
import { beginsSession } from './flights.ts'
import { maxQuestionLength } from './hints.ts'
import { accepts, mayShare, type Reading } from './reading.ts'
import type { Writes } from './writes.ts'

/** A manifest, whole. */
export interface Kept {
  from: Registry
  content: Uint8Array<ArrayBuffer>
  /** As a client gets them. */
  headers: [string, string][]
  type: string
}

const mebibyte = 1024 * 1024
const maxTags = 20_000
/** Bytes that an entry takes besides its manifest, about. */
const overheadBytes = 1024

export class Manifests {
  readonly #writes: Writes
  readonly #kept
  /** The digest that an answer by tag named, by its registry and question. */
  readonly #tagged

  /** `mebibytes`: how much is kept; 0 for nothing. `ttlMs`: for how long. */
  constructor(mebibytes: number, ttlMs: number, now: () => number, writes: Writes) {
    this.#writes = writes
    this.#tagged = bounded<string>(maxTags, ttlMs, now)
    this.#kept =
      ttlMs > 0 && mebibytes > 0
        ? bounded<Kept>(mebibytes * mebibyte, ttlMs, now, {
            sizeCalculation: ({ content }, key) => content.byteLength + key.length + overheadBytes,
          })
        : undefined
  }

  get isOn(): boolean {
    return this.#kept !== undefined
  }

  /** Whether a read may be answered from here at all. */
  concerns({ matched, isPartial }: Reading): boolean {
    return this.isOn && matched.route.entity === 'manifest' && matched.digest !== undefined && !isPartial
  }

  /** The manifest that a read by digest asks for, if one of these registries gave it and its client may get it. */
  find(reading: Reading, order: readonly Registry[]): Kept | undefined {
    const kept = this.#kept?.get(this.#key(reading))
    const isForClient = kept && order.includes(kept.from) && mayShare(kept.from, reading)
    return isForClient && accepts(reading, kept.type) ? kept : undefined
  }

  /** Which registry's manifest is kept for a read: by digest, or the one its tag last led to. Changes nothing. */
  peek(reading: Reading, order: readonly Registry[]): Registry | undefined {
    if (reading.matched.digest) return this.#kept?.peek(this.#key(reading))?.from
    return order.find((from) => {
      // Whatever its client accepted.
      const before = this.#tagKey(from, { ...reading, question: reading.question.slice(0, -reading.accept.length) })
      const key = [...this.#tagged.keys()].find((one) => one.startsWith(before))
      const digest = key && this.#tagged.peek(key)
      return digest && this.#kept?.peek(this.#key(reading, digest))?.from === from
    })
  }

  /** What was last read by this tag from this registry, if it is still kept. */
  lastByTag(from: Registry, reading: Reading): { digest: string; kept: Kept } | undefined {
    const digest = reading.matched.digest ? undefined : this.#tagged.get(this.#tagKey(from, reading))
    const kept = digest && this.#kept?.get(this.#key(reading, digest))
    return kept && kept.from === from ? { digest, kept } : undefined
  }

  /** Keeps an answer of 200, if it may be kept: the tag by its ETag, and the manifest if it was read whole. */
  keep(answer: Answer, reading: Reading, isWhole: boolean): void {
    const { matched, question } = reading
    const { from, headers } = answer
    const digest = matched.digest ?? /^"(sha.*)"$/.exec(headers.get('ETag') ?? '')?.[1]
    if (!digest) return
    if (!matched.digest && question.length <= maxQuestionLength) this.#tagged.set(this.#tagKey(from, reading), digest)
    const manifest = isWhole && toKeep(answer, digest)
    if (manifest) this.#kept?.set(this.#key(reading, digest), manifest)
  }

  #key({ name, matched, query }: Reading, digest = matched.digest): string {
    return `${this.#writes.generationOf(name)} ${name} ${digest}${query}`
  }

  #tagKey(from: Registry, { name, question }: Reading): string {
    return `${this.#writes.generationOf(name)} ${from.name} ${question}`
  }
}

function toKeep(answer: Answer, digest: string): Kept | undefined {
  const { from, content, headers } = answer
  const type = headers.get('Content-Type')
  if (!content || !type || beginsSession(answer) || !hasDigest(content, digest)) return undefined
  return { from, content, headers: from.fieldsFrom(answer).filter(([name]) => name !== 'date'), type }
}

/** The condition that saves reading a manifest again (RFC 9110, section 13.1.2). */
export const unlessSame = (digest: string): Fields => ({ 'if-none-match': `"${digest}"` })

/**
 * The answer to a client whose registry said 304 to `unlessSame`: the kept manifest. How long others may keep it is for the 304 to
 * say: for a tag that is shorter than for a digest (RFC 9110, section 15.4.5).
 */
export function revived(kept: Kept, said: Answer): Answer {
  const headers = new Headers(kept.headers)
  for (const name of ['cache-control', 'expires', 'vary']) {
    headers.delete(name)
    const value = said.headers.get(name)
    if (value) headers.set(name, value)
  }
  return { ...said, content: kept.content, headers, response: new Response(null, { headers }) }
}
