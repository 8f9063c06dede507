/** Which digest a tag led to, and when its registry last said so. */
import type { Answer, Registry } from '../registry/answer.ts'
import { bounded } from '../runtime/bounded.ts'
import { maxQuestionLength } from './hints.ts'
import type { Reading } from './reading.ts'
import type { Writes } from './writes.ts'

export interface Tag {
  digest: string
  /** Whether the digest is the ETag too, so that the registry can be asked whether the tag still leads there. */
  isEtag: boolean
  /** When the registry last said so, and when it was last asked. */
  saidAt: number
  askedAt: number
  /** How old the answer was when it came, in seconds (RFC 9111, section 5.1). */
  ageBefore: number
  /** How long others may keep the answer: `lifetimeOf` its fields. */
  lifetime: [string, string][]
}

/** All tags together. A client chooses how long a query and an Accept are, so entries are not counted, but bytes. */
const maxBytes = 32 * 1024 * 1024
/** Bytes that an entry takes besides its texts, about: the fields that are made of it too. */
const overheadBytes = 1024
/** Of one tag: clients differ in their Accept. */
const maxAccepts = 16

function bytesOf(ofTag: Map<string, Tag>, key: string): number {
  let bytes = key.length
  for (const [accept, { digest, lifetime }] of ofTag)
    bytes += overheadBytes + accept.length + digest.length + lifetime.flat().join('').length
  return bytes
}

/** A tag may change, so others may keep its answer for a shorter time than the same manifest by digest. */
export const lifetimeFields = ['cache-control', 'expires', 'vary']

export function lifetimeOf(headers: Headers): [string, string][] {
  return lifetimeFields.flatMap((name) => {
    const value = headers.get(name)
    return value === null ? [] : [[name, value] as [string, string]]
  })
}

export class Tags {
  readonly #now: () => number
  readonly #writes: Writes
  /** By registry and tag, and in it by Accept. */
  readonly #tags

  constructor(ttlMs: number, now: () => number, writes: Writes) {
    this.#now = now
    this.#writes = writes
    this.#tags = bounded<Map<string, Tag>>(maxBytes, ttlMs, now, { sizeCalculation: bytesOf })
  }

  get(from: Registry, reading: Reading): Tag | undefined {
    return this.#tags.get(this.#key(from, reading))?.get(reading.accept)
  }

  /** What a tag led to, whatever its client accepted. It counts as no use. */
  peek(from: Registry, reading: Reading): Tag | undefined {
    const ofTag = this.#tags.peek(this.#key(from, reading))
    return ofTag?.get(reading.accept) ?? ofTag?.values().next().value
  }

  /** Learns from a registry's answer of 200, or of 304 to `known`. */
  learn({ from, headers }: Answer, reading: Reading, known?: Tag): Tag | undefined {
    const etag = /^"(sha.*)"$/.exec(headers.get('ETag') ?? '')?.[1]
    const digest = known?.digest ?? etag ?? headers.get('Docker-Content-Digest')
    const key = this.#key(from, reading)
    const before = this.#tags.get(key)
    before?.delete(reading.accept)
    if (!digest || reading.question.length > maxQuestionLength) return undefined
    const now = this.#now()
    const tag: Tag = {
      digest,
      isEtag: known?.isEtag ?? etag !== undefined,
      saidAt: now,
      askedAt: now,
      ageBefore: Number.parseInt(headers.get('Age') ?? '', 10) || 0,
      lifetime: lifetimeOf(headers),
    }
    // A new map, since what is changed in place is not measured again.
    const ofTag = new Map(before)
    if (ofTag.size === maxAccepts) ofTag.delete(ofTag.keys().next().value as string)
    this.#tags.set(key, ofTag.set(reading.accept, tag))
    return tag
  }

  /** Forgets a tag, whatever was accepted. Gives the digests that it led to. */
  drop(from: Registry, reading: Reading): string[] {
    const key = this.#key(from, reading)
    const dropped = [...(this.#tags.peek(key)?.values() ?? [])].map(({ digest }) => digest)
    this.#tags.delete(key)
    return dropped
  }

  #key({ name: registry }: Registry, { name, matched, query }: Reading): string {
    return `${this.#writes.generationOf(name)} ${registry} ${matched.path}${query}`
  }
}
