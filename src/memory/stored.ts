/** What is answered from memory: manifests by digest, public tags for a while, and what a registry gave before it failed. */
import { type Answer, type Registry, skipReason } from '../registry/answer.ts'
import { isUnsure } from '../registry/verdict.ts'
import type { Fields } from '../runtime/runtime.ts'
import { type Kept, Manifests } from './manifests.ts'
import { accepts, mayShare, type Reading } from './reading.ts'
import { lifetimeFields, lifetimeOf, type Tag, Tags } from './tags.ts'
import type { Writes } from './writes.ts'

export interface StoredSettings {
  /** Seconds that a manifest is remembered; 0 for never. */
  lookupTtl: number
  /** Seconds that a public tag is answered from memory; 0 for never. */
  tagTtl: number
  /** Seconds that the last answer of a public registry stands in for the one it fails to give; 0 for never. */
  staleIfError: number
  /** MiB of manifests; 0 for none. */
  manifestMemory: number
}

/** An answer from memory. */
export interface Recalled extends Pick<Kept, 'from' | 'content' | 'headers'> {
  /** Seconds since its registry last said so, unless it is by digest. */
  age?: number
  /** Whether it is given since the registry failed. */
  isStale?: boolean
  /** Whether its registry is to be asked anew. Whoever hears so has to ask. */
  isDue?: boolean
}

/** A tag, and the manifest that it led to. */
export interface LastRead {
  tag: Tag
  kept: Kept
}

export class Stored {
  readonly isOn: boolean
  readonly #now: () => number
  readonly #lookupMs: number
  readonly #tagMs: number
  readonly #staleMs: number
  readonly #manifests: Manifests
  readonly #tags: Tags
  /** The fields that were last given for a tag, and what they were made of. */
  readonly #given = new WeakMap<Tag, { of: Kept['headers']; status: string; headers: Kept['headers']; age: number }>()

  constructor(settings: StoredSettings, now: () => number, writes: Writes) {
    const { lookupTtl, tagTtl, staleIfError, manifestMemory } = settings
    const [lookupMs, tagMs, staleMs] = [lookupTtl, tagTtl, staleIfError].map((one) => Math.ceil(one * 1000)) as [
      number,
      number,
      number,
    ]
    const publicMs = Math.max(lookupMs, tagMs, staleMs)
    this.isOn = lookupMs > 0 && manifestMemory > 0
    this.#now = now
    this.#lookupMs = lookupMs
    this.#tagMs = tagMs
    this.#staleMs = staleMs
    this.#tags = new Tags(publicMs, now, writes)
    this.#manifests = new Manifests(
      manifestMemory,
      ({ role }) => (role === 'public' ? publicMs : lookupMs),
      now,
      writes,
    )
  }

  /** What kind of use it is to answer this from memory; undefined if that may not be. */
  kindOf(reading: Reading, [first]: readonly Registry[]): 'manifest' | 'fresh' | undefined {
    if (!this.isOn || reading.matched.route.entity !== 'manifest' || reading.isPartial) return undefined
    if (reading.matched.digest) return 'manifest'
    // Only a public tag that no other registry comes before.
    return this.#tagMs > 0 && first?.role === 'public' && !reading.mustAsk ? 'fresh' : undefined
  }

  /** The manifest that a read asks for, if one of these registries gave it and its client may get it. */
  recall(reading: Reading, order: readonly Registry[]): Recalled | undefined {
    const { digest } = reading.matched
    if (digest) return this.#byDigest(reading, order, digest)
    const last = this.lastRead(order[0] as Registry, reading)
    if (!last) return undefined
    const now = this.#now()
    const ageMs = now - last.tag.saidAt
    if (ageMs > this.#tagMs) return undefined
    const isDue = now - last.tag.askedAt >= this.#tagMs / 2
    if (isDue) last.tag.askedAt = now
    return { ...this.#aged(last, ageMs, `hit; ttl=${secondsOf(this.#tagMs - ageMs)}`), isDue }
  }

  /** As `aged` gives it: made once a second, since hundreds of nodes may start one image. */
  #aged(last: LastRead, ageMs: number, status: string): Recalled {
    const { from, content, headers: of } = last.kept
    const before = this.#given.get(last.tag)
    if (before?.of === of && before.age === secondsOf(ageMs) && before.status === status) {
      const { headers, age } = before
      return { from, content, headers, age }
    }
    const given = aged(last, ageMs, status)
    // Not the content: what is kept of manifests is bounded elsewhere.
    this.#given.set(last.tag, { of, status, headers: given.headers, age: given.age })
    return given
  }

  /**
   * What a public registry gave last, in place of an answer that it failed to give. Not before it is sure that it failed.
   * `ofAny`: whatever was accepted, for people.
   */
  instead(reading: Reading, answer: Answer, ofAny = false): Recalled | undefined {
    const { from } = answer
    const { isPartial, mustAsk, matched } = reading
    const isOn = this.isOn && this.#staleMs > 0 && matched.route.entity === 'manifest' && !isPartial && !mustAsk
    if (!isOn || from.role !== 'public' || !isUnsure(answer) || answer.isVague) return undefined
    const last = matched.digest
      ? this.#lastByDigest(from, reading, matched.digest)
      : this.lastRead(from, reading, ofAny)
    const ageMs = last ? this.#now() - last.tag.saidAt : 0
    if (!last || ageMs > this.#staleMs) return undefined
    const freshMs = matched.digest ? this.#freshMs(from) : this.#tagMs
    return { ...aged(last, ageMs, `${waysOf(answer)}; ttl=${secondsOf(freshMs - ageMs)}`), isStale: true }
  }

  /** What was last read by this tag from this registry, if it is still kept. */
  lastRead(from: Registry, reading: Reading, ofAny = false): LastRead | undefined {
    if (reading.matched.digest) return undefined
    const tag = ofAny ? this.#tags.peek(from, reading) : this.#tags.get(from, reading)
    const kept = tag && this.#manifests.get(reading, tag.digest)
    return kept && kept.from === from ? { tag, kept } : undefined
  }

  /** Keeps an answer of 200: the digest that its tag leads to, and the manifest if it was read whole. */
  keep(answer: Answer, reading: Reading, isWhole: boolean): void {
    const digest = reading.matched.digest ?? this.#tags.learn(answer, reading)?.digest
    if (digest && isWhole) this.#manifests.keep(answer, reading, digest)
  }

  /** A registry has said 304 to what was last read by a tag. */
  confirm(answer: Answer, reading: Reading, { tag }: LastRead): void {
    this.#tags.learn(answer, reading, tag)
    this.#manifests.confirm(reading, tag.digest)
  }

  /** Forgets what a public registry has no more, or denies. */
  forget(reading: Reading, { from, verdict }: Answer): void {
    const { matched } = reading
    if (from.role !== 'public' || matched.route.entity !== 'manifest') return
    if (verdict !== 'absent' && verdict !== 'denied') return
    const digests = matched.digest ? [matched.digest] : this.#tags.drop(from, reading)
    // A tag that is gone may have moved; one that is denied leads to what is denied too.
    if (matched.digest || verdict === 'denied') for (const digest of digests) this.#manifests.drop(reading, digest)
  }

  /** The manifest that is kept for a read, by digest or by the tag it last led to, and its age. Changes nothing. */
  peek(reading: Reading, order: readonly Registry[]): { from: Registry; seconds: number } | undefined {
    const { digest } = reading.matched
    for (const from of order) {
      const tag = digest ? undefined : this.#tags.peek(from, reading)
      const kept = this.#manifests.peek(reading, digest ?? tag?.digest ?? '')
      const since = this.#now() - (tag ?? kept ?? { saidAt: 0 }).saidAt
      if (kept?.from === from) return { from, seconds: Math.floor(since / 1000) }
    }
    return undefined
  }

  #byDigest(reading: Reading, order: readonly Registry[], digest: string): Kept | undefined {
    const kept = this.#manifests.get(reading, digest)
    if (!kept || this.#now() - kept.saidAt > this.#freshMs(kept.from)) return undefined
    const isForClient = order.includes(kept.from) && mayShare(kept.from, reading)
    return isForClient && accepts(reading, kept.type) ? kept : undefined
  }

  #lastByDigest(from: Registry, reading: Reading, digest: string): LastRead | undefined {
    const kept = this.#manifests.get(reading, digest)
    if (!kept || kept.from !== from || !accepts(reading, kept.type)) return undefined
    const { saidAt } = kept
    return { kept, tag: { digest, isEtag: false, saidAt, askedAt: saidAt, ageBefore: 0, lifetime: [] } }
  }

  /** How long a manifest is given by digest without asking for it. */
  #freshMs({ role }: Registry): number {
    return role === 'public' ? Math.max(this.#lookupMs, this.#tagMs) : this.#lookupMs
  }
}

const secondsOf = (milliseconds: number) => Math.floor(milliseconds / 1000)

/** Which way it took, as RFC 9211 has it (sections 2.1 to 2.3): a registry that is skipped was not asked. */
function waysOf({ reason, response }: Answer): string {
  if (reason === skipReason) return 'hit'
  return response ? `fwd=stale; fwd-status=${response.status}` : 'fwd=stale'
}

const replaced = ['age', 'cache-status', ...lifetimeFields]

function aged({ tag, kept }: LastRead, ageMs: number, status: string): Recalled & { age: number } {
  const { from, content } = kept
  const age = secondsOf(ageMs)
  const before = kept.headers.find(([name]) => name === 'cache-status')?.[1]
  const headers = kept.headers.filter(([name]) => !replaced.includes(name))
  const own = `combined-registry; ${status}`
  headers.push(...tag.lifetime, ['age', `${age + tag.ageBefore}`])
  headers.push(['cache-status', before === undefined ? own : `${before}, ${own}`])
  return { from, content, headers, age }
}

/** The condition that saves reading a manifest again (RFC 9110, section 13.1.2). */
export const unlessSame = ({ tag: { digest } }: LastRead): Fields => ({ 'if-none-match': `"${digest}"` })

/**
 * The answer to a client whose registry said 304 to `unlessSame`: the kept manifest. How long others may keep it is for the 304 to
 * say: for a tag that is shorter than for a digest (RFC 9110, section 15.4.5).
 */
export function revived({ kept }: LastRead, said: Answer): Answer {
  const headers = new Headers(kept.headers.filter(([name]) => !lifetimeFields.includes(name)))
  for (const [name, value] of lifetimeOf(said.headers)) headers.set(name, value)
  return { ...said, content: kept.content, headers, response: new Response(null, { headers }) }
}
