/** Which names the public registry lacks as a whole. Their tags are hosted's. Only if its list is closed are they asked for there, in the background. */
import type { Answer } from '../registry/answer.ts'
import { isRefusal } from '../registry/verdict.ts'
import { bounded } from '../runtime/bounded.ts'
import { Known, lasting } from './known.ts'

const maxNames = 20_000
/** A name that has been lacking for long seldom appears soon. */
const maxTimes = 8

/** What is known of a name, for people. `closed`: the public registry keeps its list of tags from this router. */
export interface NameFact {
  state: 'lacking' | 'public' | 'closed'
  seconds: number
}

/** To be called with what the public registry says to the list of a name's tags. */
export type LearnName = (answer: Answer) => void

export class Names {
  readonly #isOn: boolean
  readonly #now: () => number
  /** `public`: it has the list, or it gave something of the name. */
  readonly #known
  /**
   * When it said 401 or 403 to the list. It says so of what it lacks, and of lists that it keeps closed: too little to be believed for
   * long, or to be asked anew while it is believed.
   */
  readonly #closed
  /** Names whose list was asked for lately. */
  readonly #asked
  /** When the public registry was first seen to have a name that it had lacked. */
  readonly #appeared

  /** `nameTtlMs`: how long it holds at first without being asked anew; `closedTtlMs`: the same of a list that is closed; 0 for never. */
  constructor(nameTtlMs: number, closedTtlMs: number, now: () => number) {
    this.#isOn = nameTtlMs > 0 && closedTtlMs > 0
    this.#now = now
    this.#known = new Known<'lacking' | 'public'>(maxNames, nameTtlMs, now, maxTimes)
    this.#closed = bounded<{ since: number }>(maxNames, closedTtlMs, now)
    this.#asked = bounded<true>(maxNames, closedTtlMs, now)
    this.#appeared = bounded<{ at: number }>(maxNames, closedTtlMs * lasting, now)
  }

  /** Whether the public registry lacks the name, as far as is known. */
  lacks(name: string): boolean {
    return this.surelyLacks(name) || this.#closed.has(name)
  }

  /** Whether its answer was `absent`, and not only a closed list. */
  surelyLacks(name: string): boolean {
    return this.#known.get(name) === 'lacking'
  }

  /** When the public registry turned out to have the name. What was known of its tags before may be out of date. */
  appearedAt(name: string): number | undefined {
    return this.#appeared.get(name)?.at
  }

  peek(name: string): NameFact | undefined {
    const closed = this.#closed.peek(name)
    const known = closed ? { value: 'closed' as const, ageMs: this.#now() - closed.since } : this.#known.peek(name)
    return known && { state: known.value, seconds: Math.round(known.ageMs / 1000) }
  }

  /** To be called when the public registry was seen to have something of the name. */
  saw(name: string): void {
    if (!this.#isOn) return
    if (this.lacks(name)) this.#appeared.set(name, { at: this.#now() })
    this.#closed.delete(name)
    this.#known.set(name, 'public')
  }

  /** To be called when hosted served the name. Who gets a function has to ask for the list of its tags: nobody else is told to. */
  ask(name: string): LearnName | undefined {
    if (!this.#isOn || this.#asked.has(name)) return undefined
    if (this.#known.get(name) ? !this.#known.isDue(name) : this.#closed.has(name)) return undefined
    this.#asked.set(name, true)
    const askedAt = this.#now()
    return (answer) => this.#learn(name, askedAt, answer)
  }

  #learn(name: string, askedAt: number, answer: Answer): void {
    const { verdict, isEmpty } = answer
    // Some say it of a name that they lack.
    if (isEmpty) return
    if (verdict === 'found') this.saw(name)
    const isPublic = this.#known.get(name) === 'public'
    // It gave something of the name while it was asked for the list.
    if (isPublic && this.#known.isSince(name, askedAt)) return
    if (verdict === 'absent') {
      this.#closed.delete(name)
      this.#known.set(name, 'lacking')
    } else if (isRefusal(answer) && !isPublic) {
      this.#known.delete(name)
      this.#closed.set(name, { since: this.#now() })
    }
  }
}
