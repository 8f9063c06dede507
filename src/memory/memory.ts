/** What was learned of the registries lately, and the questions in flight, as the relay uses them. */

import type { Answer, Registry } from '../registry/answer.ts'
import { discard } from '../registry/registry.ts'
import { bounded } from '../runtime/bounded.ts'
import type { Fields } from '../runtime/runtime.ts'
import { type AskWith, Flights } from './flights.ts'
import { Hints } from './hints.ts'
import { type Kept, Manifests, revived, unlessSame } from './manifests.ts'
import { loginAt, mayShare, type PingReading, type Reading } from './reading.ts'
import { Writes } from './writes.ts'

export interface MemorySettings {
  /** Seconds that a verdict or a manifest is remembered; 0 for never. */
  lookupTtl: number
  /** MiB of manifests; 0 for none. */
  manifestMemory: number
}

/** What a lookup uses of the memory. */
export interface LookupMemory {
  manifest: (reading: Reading, order: readonly Registry[]) => Kept | undefined
  inTurn: (reading: Reading, order: readonly Registry[]) => readonly Registry[]
  /** The public registry of these that lacks what is read, as far as is known. */
  lacking: (reading: Reading, order: readonly Registry[]) => Registry | undefined
  /** Which registry is to be asked anew for the tag that is read, now that hosted has answered in its place. */
  due: (reading: Reading, order: readonly Registry[]) => Registry | undefined
  learn: (reading: Reading, answer: Answer) => void
  /** Whether a name was read from a public registry lately. */
  isPublic: (name: string) => boolean
  askTogether: (from: Registry, method: string, reading: Reading, ask: AskManifest) => Promise<Answer>
}

/** Asks for a manifest, with these header fields besides. */
type AskManifest = (signal: AbortSignal, fields?: Fields) => Promise<Answer>

/** Which registry would be asked first, whose manifest is kept, and what a public registry lacked so many seconds ago. */
interface Held {
  first?: Registry
  manifest?: Registry
  lacking?: { by: Registry; what: 'tag'; seconds: number }
}

/** Called for every use: whether memory had what was looked for. */
type OnUse = (kind: 'hint' | 'manifest' | 'tag' | 'flight' | 'ping', outcome: 'hit' | 'miss') => void

const maxPings = 1000
const pingMs = 1000

export class Memory implements LookupMemory {
  readonly writes: Writes
  readonly hints: Hints
  readonly #manifests: Manifests
  readonly #flights: Flights
  readonly #pings
  readonly #onUse: OnUse

  constructor({ lookupTtl, manifestMemory }: MemorySettings, now: () => number, onUse: OnUse) {
    const ttlMs = Math.ceil(lookupTtl * 1000)
    this.writes = new Writes(now)
    this.hints = new Hints(ttlMs, now)
    this.#manifests = new Manifests(manifestMemory, ttlMs, now, this.writes)
    this.#flights = new Flights((isShared) => onUse('flight', isShared ? 'hit' : 'miss'))
    this.#pings = bounded<Answer>(maxPings, Math.min(pingMs, ttlMs), now)
    this.#onUse = onUse
  }

  /** The registries to ask, the most likely one first. */
  inTurn(reading: Reading, order: readonly Registry[]): readonly Registry[] {
    if (!this.hints.isOn) return order
    const first = this.#first(reading, order)
    this.#count('hint', first)
    return firstOf(order, first)
  }

  lacking(reading: Reading, order: readonly Registry[]): Registry | undefined {
    const lacking = this.hints.lacking(reading)
    return lacking && order.includes(lacking) ? lacking : undefined
  }

  /** Whoever gets a registry has to ask it: until its time is over again, nobody else gets one. */
  due(reading: Reading, order: readonly Registry[]): Registry | undefined {
    return this.hints.isDue(reading) ? this.lacking(reading, order) : undefined
  }

  learn(reading: Reading, answer: Answer): void {
    this.hints.learn(reading, answer)
  }

  /** What is held for a read, for people. Changes nothing. */
  holds(reading: Reading, order: readonly Registry[]): Held {
    const lacking = this.hints.peekLacking(reading)
    return {
      first: this.#first(reading, order),
      manifest: this.#manifests.peek(reading, order),
      lacking: lacking && { by: lacking.value, what: 'tag', seconds: Math.round(lacking.ageMs / 1000) },
    }
  }

  /** For a lookup that is only looked at: it is asked anew, in the order that this memory gives, and nothing is learned. */
  onlyLooking(): LookupMemory {
    return {
      manifest: () => undefined,
      inTurn: (reading, order) => firstOf(order, this.#first(reading, order)),
      lacking: (reading, order) => this.lacking(reading, order),
      due: () => undefined,
      learn: () => {},
      isPublic: (name) => this.isPublic(name),
      askTogether: (_, __, { signal }, ask) => ask(signal),
    }
  }

  /** The manifest that a read asks for, if one of these registries gave it and its client may get it. */
  manifest(reading: Reading, order: readonly Registry[]): Kept | undefined {
    if (!this.#manifests.concerns(reading)) return undefined
    const kept = this.#manifests.find(reading, order)
    this.#count('manifest', kept)
    if (kept) this.hints.sawAt(kept.from, reading.name)
    return kept
  }

  /** Asks for a manifest, once for all who ask the same at the same time, and keeps it if it may be kept. */
  async askTogether(from: Registry, method: string, reading: Reading, ask: AskManifest): Promise<Answer> {
    const { signal, name, isPartial, question } = reading
    if (isPartial) return ask(signal)
    const generation = this.writes.generationOf(name)
    const key = `${generation} ${from.name} ${method} ${question} ${loginAt(from, reading)}`
    return this.#flights.share(key, from, signal, async (abort) => {
      if (!this.#manifests.isOn || !mayShare(from, reading)) return ask(abort)
      // A registry compares digests sooner than it reads a manifest.
      const last = this.#manifests.lastByTag(from, reading)
      const answer = await ask(abort, last ? unlessSame(last.digest) : {})
      const isSame = last !== undefined && answer.status === 304
      if (!reading.matched.digest) this.#onUse('tag', isSame ? 'hit' : 'miss')
      // If a write has finished while we were reading, this manifest may be stale: do not keep it.
      if (answer.status === 200 && this.writes.generationOf(name) === generation) {
        this.#manifests.keep(answer, reading, method === 'GET')
      }
      const whole = (said: Answer) => (last && said.status === 304 ? revived(last.kept, said) : said)
      const { later } = answer
      return later ? { ...answer, later: { ...later, answer: later.answer.then(whole) } } : whole(answer)
    })
  }

  /** Asks for a registry's `/v2/`, at most once a second for all clients that the registry may not tell apart. */
  async ping(from: Registry, reading: PingReading, ask: AskWith): Promise<Answer> {
    const key = `${from.name} ${loginAt(from, reading)} ${from.forwardsLogin ? reading.userAgent : ''}`
    const known = this.hints.isOn ? this.#pings.get(key) : undefined
    this.#count('ping', known)
    if (known) return known
    return this.#flights.share(`ping ${key}`, from, reading.signal, async (signal) => {
      const given = await ask(signal)
      discard(given)
      // If the registry is up, nothing else of its answer is for all.
      const answer = given.verdict === 'found' ? { ...given, response: undefined } : given
      if (this.hints.isOn && answer.verdict !== 'gone') this.#pings.set(key, answer)
      return answer
    })
  }

  isPublic(name: string): boolean {
    return this.hints.isPublic(name)
  }

  /** Whether the reads of a name are of public images: HEAD of its blobs then comes from a reader, not from a push. */
  readsPublic(name: string): boolean {
    return this.hints.isPublic(name) && !this.writes.isPushedTo(name)
  }

  /**
   * The registry of `order` to ask first, if something is known about it.
   * - By digest: the registry that last served the name.
   * - By tag: not a public registry that lacked the tag.
   */
  #first(reading: Reading, order: readonly Registry[]): Registry | undefined {
    const lacking = this.lacking(reading, order)
    return this.hints.serving(reading) ?? (lacking && order.find((one) => one !== lacking))
  }

  #count(kind: Parameters<OnUse>[0], found: unknown): void {
    this.#onUse(kind, found === undefined ? 'miss' : 'hit')
  }
}

function firstOf(order: readonly Registry[], first: Registry | undefined): readonly Registry[] {
  return first && order.includes(first) ? [first, ...order.filter((one) => one !== first)] : order
}
