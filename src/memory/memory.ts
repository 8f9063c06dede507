/** What was learned of the registries lately, and the questions in flight, as the relay uses them. */

import type { Answer, Registry } from '../registry/answer.ts'
import { discard } from '../registry/registry.ts'
import { bounded } from '../runtime/bounded.ts'
import type { Budget, Room } from '../runtime/budget.ts'
import type { Fields } from '../runtime/runtime.ts'
import { type Asker, type AskWith, askTogether, Flights } from './flights.ts'
import { Hints } from './hints.ts'
import { type LearnName, type NameFact, Names } from './names.ts'
import { loginAt, mayShare, type PingReading, type Reading } from './reading.ts'
import { type Recalled, revived, Stored, type StoredSettings, unlessSame } from './stored.ts'
import { Writes } from './writes.ts'

export interface MemorySettings extends StoredSettings {
  /** Seconds that a name that the public registry lacks is remembered; 0 for never. */
  nameTtl: number
}

/** What a lookup uses of the memory. */
export interface LookupMemory {
  /** The manifest that a read asks for, if memory may answer for these registries. */
  recall: (reading: Reading, order: readonly Registry[]) => Recalled | undefined
  /** What a public registry gave last, in place of an answer that it failed to give. */
  instead: (reading: Reading, answer: Answer) => Recalled | undefined
  inTurn: (reading: Reading, order: readonly Registry[]) => readonly Registry[]
  /** The registry to ask first by the table, if it is known to lack what is read. */
  lacking: (reading: Reading, order: readonly Registry[]) => Registry | undefined
  /** What the public registry of these is to be asked, now that hosted has answered in its place. */
  due: (reading: Reading, order: readonly Registry[], answer: Answer) => Due
  learn: (reading: Reading, answer: Answer) => void
  /** Whether a name was read from a public registry lately. */
  isPublic: (name: string) => boolean
  askTogether: (from: Registry, method: string, reading: Reading, asker: Asker, ask: AskManifest) => Promise<Answer>
}

/** What is to be asked in the background: of whom, and who learns from the answer. Whoever gets this has to ask. */
export interface Due {
  /** The tag that was read. */
  tag?: Registry
  /** The list of tags of the name that was read. */
  name?: { of: Registry; learn: LearnName }
}

/** Asks for a manifest, with these header fields besides. */
type AskManifest = (signal: AbortSignal, room?: Room, fields?: Fields) => Promise<Answer>

/** Which registry would be asked first, whose manifest is kept, and what a public registry lacked so many seconds ago. */
interface Held {
  first?: Registry
  manifest?: { from: Registry; seconds: number }
  lacking?: { by: Registry; what: 'tag'; seconds: number }
  name?: NameFact
}

/** Called for every use: whether memory had what was looked for. */
type OnUse = (
  kind: 'hint' | 'name' | 'manifest' | 'tag' | 'fresh' | 'stale' | 'flight' | 'ping',
  outcome: 'hit' | 'miss',
) => void

const maxPings = 1000
const pingMs = 1000

export class Memory implements LookupMemory {
  readonly writes: Writes
  readonly hints: Hints
  readonly names: Names
  readonly #stored: Stored
  readonly #flights: Flights
  readonly #pings
  readonly #onUse: OnUse

  /** `budget`: for what is read whole for several clients. */
  constructor(settings: MemorySettings, budget: Budget, now: () => number, onUse: OnUse) {
    const { lookupTtl, nameTtl } = settings
    const ttlMs = Math.ceil(lookupTtl * 1000)
    this.writes = new Writes(now)
    this.hints = new Hints(ttlMs, now)
    this.names = new Names(Math.ceil(nameTtl * 1000), ttlMs, now)
    this.#stored = new Stored(settings, now, this.writes)
    this.#flights = new Flights(budget, (isShared) => onUse('flight', isShared ? 'hit' : 'miss'))
    this.#pings = bounded<Answer>(maxPings, Math.min(pingMs, ttlMs), now)
    this.#onUse = onUse
  }

  /** The registries to ask, the most likely one first. */
  inTurn(reading: Reading, order: readonly Registry[]): readonly Registry[] {
    if (!this.hints.isOn) return order
    const first = this.#first(reading, order)
    if (isByTable(order)) this.#count('name', this.names.lacks(reading.name) || undefined)
    this.#count('hint', first)
    return firstOf(order, first)
  }

  lacking(reading: Reading, order: readonly Registry[]): Registry | undefined {
    if (isByTable(order) && this.names.lacks(reading.name)) return order[0]
    const lacking = this.hints.lacking(reading, this.names.appearedAt(reading.name))
    return lacking && lacking === order[0] ? lacking : undefined
  }

  due(reading: Reading, order: readonly Registry[], { from, verdict }: Answer): Due {
    const [of] = order
    if (!of || !isByTable(order) || from.role !== 'hosted') return {}
    const { name } = reading
    const isLacking = this.names.lacks(name)
    // A closed list proves little, so the tag is asked for too, in the background.
    const isGuessed = isLacking && !this.names.surelyLacks(name)
    const isDue = (isGuessed || !isLacking) && this.hints.isDue(reading, isGuessed)
    const learn = verdict === 'found' || isLacking ? this.names.ask(name) : undefined
    return { tag: isDue ? of : undefined, name: learn && { of, learn } }
  }

  learn(reading: Reading, answer: Answer): void {
    this.hints.learn(reading, answer)
    this.#stored.forget(reading, answer)
    const { verdict, from, isEmpty } = answer
    if (verdict === 'found' && from.role === 'public' && !isEmpty) this.names.saw(reading.name)
  }

  /** What is held for a read, for people. Changes nothing. */
  holds(reading: Reading, order: readonly Registry[]): Held {
    const lacking = this.hints.peekLacking(reading, this.names.appearedAt(reading.name))
    return {
      first: this.#first(reading, order),
      manifest: this.#stored.peek(reading, order),
      lacking: lacking && { by: lacking.value, what: 'tag', seconds: Math.round(lacking.ageMs / 1000) },
      name: isByTable(order) ? this.names.peek(reading.name) : undefined,
    }
  }

  /** For a lookup that is only looked at: it is asked anew, in the order that this memory gives, and nothing is learned. */
  onlyLooking(): LookupMemory {
    return {
      recall: () => undefined,
      instead: (reading, answer) => this.#stored.instead(reading, answer, true),
      inTurn: (reading, order) => firstOf(order, this.#first(reading, order)),
      lacking: (reading, order) => this.lacking(reading, order),
      due: () => ({}),
      learn: () => {},
      isPublic: (name) => this.isPublic(name),
      askTogether: (_, __, ___, { signal, room }, ask) => ask(signal, room),
    }
  }

  recall(reading: Reading, order: readonly Registry[]): Recalled | undefined {
    const kind = this.#stored.kindOf(reading, order)
    if (!kind) return undefined
    const recalled = this.#stored.recall(reading, order)
    this.#count(kind, recalled)
    if (recalled) this.hints.sawAt(recalled.from, reading.name)
    return recalled
  }

  instead(reading: Reading, answer: Answer): Recalled | undefined {
    const recalled = this.#stored.instead(reading, answer)
    if (recalled) this.#count('stale', recalled)
    return recalled
  }

  /** Asks for a manifest, once for all who ask the same at the same time, and keeps it if it may be kept. */
  async askTogether(from: Registry, method: string, reading: Reading, asker: Asker, ask: AskManifest): Promise<Answer> {
    const { name, isPartial, question } = reading
    if (isPartial) return ask(asker.signal, asker.room)
    const generation = this.writes.generationOf(name)
    const key = `${generation} ${from.name} ${method} ${question} ${loginAt(from, reading)}`
    return askTogether(this.#flights, key, from, asker, async (signal, room) => {
      if (!this.#stored.isOn || !mayShare(from, reading)) return ask(signal, room)
      // A registry compares digests sooner than it reads a manifest.
      const read = this.#stored.lastRead(from, reading)
      const last = read?.tag.isEtag ? read : undefined
      const answer = await ask(signal, room, last ? unlessSame(last) : {})
      const whole = (said: Answer) => {
        const isSame = last !== undefined && said.status === 304
        if (!reading.matched.digest) this.#onUse('tag', isSame ? 'hit' : 'miss')
        // If a write has finished while we were reading, this manifest may be stale: do not keep it.
        const isCurrent = this.writes.generationOf(name) === generation
        if (isCurrent && isSame) this.#stored.confirm(said, reading, last)
        if (isCurrent && said.status === 200) this.#stored.keep(said, reading, method === 'GET')
        return isSame ? revived(last, said) : said
      }
      const { later } = answer
      return later ? { ...answer, later: { ...later, answer: later.answer.then(whole) } } : whole(answer)
    })
  }

  /** Asks for a registry's `/v2/`, at most once a second for all clients that the registry may not tell apart. */
  async ping(from: Registry, reading: PingReading, asker: Asker, ask: AskWith): Promise<Answer> {
    const key = `${from.name} ${loginAt(from, reading)} ${from.forwardsLogin ? reading.userAgent : ''}`
    const known = this.hints.isOn ? this.#pings.get(key) : undefined
    this.#count('ping', known)
    if (known) return known
    return askTogether(this.#flights, `ping ${key}`, from, asker, async (signal) => {
      const given = await ask(signal)
      discard(given)
      // If the registry is up, nothing else of its answer is for all.
      const answer = given.verdict === 'found' ? { ...given, response: undefined } : given
      if (this.hints.isOn && answer.verdict !== 'gone') this.#pings.set(key, answer)
      return answer
    })
  }

  /** To be called when a registry was seen to have a manifest or a blob of a name. */
  sawAt(from: Registry, name: string): void {
    this.hints.sawAt(from, name)
    if (from.role === 'public') this.names.saw(name)
  }

  isPublic(name: string): boolean {
    return this.hints.isPublic(name)
  }

  /**
   * The registry of `order` to ask first, if something is known about it.
   * - By digest: the registry that last served the name.
   * - Else: not a public registry that lacks the name or the tag.
   */
  #first(reading: Reading, order: readonly Registry[]): Registry | undefined {
    return this.hints.serving(reading) ?? (this.lacking(reading, order) && order[1])
  }

  #count(kind: Parameters<OnUse>[0], found: unknown): void {
    this.#onUse(kind, found === undefined ? 'miss' : 'hit')
  }
}

/** Whether the name rule leaves it to the route table, which asks the public registry first and then hosted. */
const isByTable = ([first, second]: readonly Registry[]) => first?.role === 'public' && second?.role === 'hosted'

function firstOf(order: readonly Registry[], first: Registry | undefined): readonly Registry[] {
  return first && first !== order[0] && order.includes(first) ? [first, ...order.filter((one) => one !== first)] : order
}
