/**
 * Checks logins against a bcrypt file, and remembers them. Those that are not remembered wait, in two queues of the same order:
 * - In the first for a check, two at a time. A right login is let in at once. A login of nobody in the file costs nothing here.
 * - In the second for a refusal, two at a time, each as long as a check takes. So time tells nobody which users there are, and a
 *   flood of invented users keeps no login waiting.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { setTimeout as elapsed } from 'node:timers/promises'
import type { Log } from '../log.ts'
import { bounded } from '../runtime/bounded.ts'
import { follow } from '../runtime/files.ts'
import { networkOf } from '../runtime/networks.ts'
import { Failures } from './failures.ts'
import { Pace } from './pace.ts'
import { Threads } from './threads.ts'
import { Turns, type Waiting } from './turns.ts'
import { hashesFor, highestCost, readUsers, type Users } from './users.ts'

/** `busy`: too many logins wait. */
export type Check = 'right' | 'wrong' | 'busy'

/** A right login is remembered until the file changes, if that is sooner. */
const rememberedMs = { right: 3_600_000, wrong: 60_000 }
const maxRemembered = 10_000
const maxThreads = 2
/** Of one user from one source more than one login waits only if somebody guesses, or has just changed a password. */
const bounds = { ofName: 8, ofSource: 100, inAll: 1000 }
/** Docker waits 15 s for an answer to its first request. */
const longestWaitMs = 10_000
/**
 * At most 500 answers of `busy` a second: their clients would only come again before all else is answered. Many go out at once, since
 * one alone costs three times as much.
 */
const busyPace = { perInterval: 50, intervalMs: 100, maxIntervals: 20 }
/** A login that waits. All who send the same one from the same source share it. */
interface Login extends Waiting {
  /** Under which it is remembered. */
  id: string
  password: string
  /** The hash of the user's password; undefined if there is no such user. */
  hash: string | undefined
  address: string
  /** Ends its wait. */
  limit: NodeJS.Timeout
  /** Settles when it was checked. */
  checked: Later<void>
  outcome: Later<Check>
}

export class Passwords {
  readonly #right
  readonly #wrong
  readonly #failures: Failures
  readonly #pace: Pace
  readonly #threads: Pick<Threads, keyof Threads>
  readonly #maxWaitMs: number
  /** By source and id, each until it is answered. */
  readonly #waiting = new Map<string, Login>()
  /** No login is here that is not also to be refused, or being refused: so it has the same bounds. */
  readonly #toCheck = new Turns<Login>()
  readonly #toRefuse = new Turns<Login>(bounds)
  #checking = 0
  #refusing = 0
  #users: Users
  #cost: number
  /** Logins are remembered as hashes under this key. It dies with the process, and with the users. */
  #key = randomBytes(32)

  /** Throws an Error if the file cannot be read. Reads it again when it changes. */
  constructor(
    path: string,
    now: () => number,
    log: Log,
    threads: Pick<Threads, keyof Threads> = new Threads(),
    maxWaitMs = longestWaitMs,
  ) {
    this.#maxWaitMs = maxWaitMs
    this.#threads = threads
    this.#right = bounded<true>(maxRemembered, rememberedMs.right, now)
    this.#wrong = bounded<true>(maxRemembered, rememberedMs.wrong, now)
    this.#failures = new Failures(log)
    this.#pace = new Pace(busyPace, now)
    const use = (users: Users) => {
      this.#users = users
      this.#cost = highestCost(users)
      this.#key = randomBytes(32)
      log('info', 'users read anew', { users: users.size })
    }
    const failed = (cause: string) =>
      log('warn', 'HTPASSWD_FILE cannot be read anew, the users stay as they were', { cause })
    this.#users = follow([path], () => readUsers(path), use, failed)
    this.#cost = highestCost(this.#users)
  }

  /** Whether a login is right; `address` is where it came from. */
  async check(user: string, password: string, address: string): Promise<Check> {
    const id = createHmac('sha256', this.#key)
      .update(JSON.stringify([user, password]))
      .digest('base64')
    if (this.#right.get(id)) return 'right'
    if (this.#wrong.get(id)) return 'wrong'
    const source = networkOf(address)
    const login = this.#waiting.get(keyOf({ source, id })) ?? this.#add({ id, source, name: user, password, address })
    this.#goOn()
    return login.outcome.promise
  }

  #add(given: Pick<Login, 'id' | 'source' | 'name' | 'password' | 'address'>): Login {
    const hash = this.#users.get(given.name)
    const limit = setTimeout(() => this.#turnAway(login), this.#maxWaitMs).unref()
    const promises = { checked: later<void>(), outcome: later<Check>() }
    const login: Login = { ...given, hash, lot: Math.random(), limit, ...promises }
    this.#waiting.set(keyOf(login), login)
    this.#toCheck.add(login)
    const surplus = this.#toRefuse.add(login)
    if (surplus) this.#turnAway(surplus)
    return login
  }

  /** Begins as many checks and refusals as may run now. */
  #goOn(): void {
    while (this.#checking < maxThreads) {
      const login = this.#toCheck.next()
      if (!login) break
      this.#check(login)
    }
    // Before the first check nobody knows how long one takes.
    while (this.#refusing < maxThreads && this.#threads.isMeasured) {
      const login = this.#toRefuse.next()
      if (!login) break
      this.#refuse(login)
    }
  }

  /** Others than users of the file are checked only to know how long it takes. */
  async #check(login: Login): Promise<void> {
    const { id, hash, checked } = login
    if (this.#right.get(id)) this.#answer(login, 'right')
    else if (hash !== undefined || !this.#threads.isMeasured) await this.#compare(login)
    checked.settle()
  }

  async #compare(login: Login): Promise<void> {
    this.#checking++
    try {
      const hashes = hashesFor(login.hash, this.#cost)
      if (!(await this.#threads.compare(login.password, hashes, this.#cost))) return
      this.#right.set(login.id, true)
      this.#answer(login, 'right')
    } catch (error) {
      if (this.#remove(login)) login.outcome.settle(Promise.reject(error))
    } finally {
      this.#checking--
      this.#goOn()
    }
  }

  async #refuse(login: Login): Promise<void> {
    this.#refusing++
    await Promise.all([this.#threads.imitate(this.#cost), login.checked.promise])
    this.#refusing--
    this.#answer(login, 'wrong')
    this.#goOn()
  }

  /** If its check runs already, it may still be let in. */
  async #turnAway(login: Login): Promise<void> {
    if (!this.#remove(login)) return
    const delayMs = this.#pace.delayMs()
    if (delayMs > 0) await elapsed(delayMs, undefined, { ref: false })
    login.outcome.settle(this.#right.get(login.id) ? 'right' : 'busy')
  }

  #answer(login: Login, outcome: Check): void {
    // A right login may still have its turn to be refused. One that was turned away may be found right.
    if (!this.#remove(login)) return
    if (outcome === 'wrong') {
      this.#wrong.set(login.id, true)
      this.#failures.add(login.source, login.name, login.address)
    }
    login.outcome.settle(outcome)
  }

  /** False if it does not wait any more. */
  #remove(login: Login): boolean {
    if (this.#waiting.get(keyOf(login)) !== login) return false
    this.#waiting.delete(keyOf(login))
    clearTimeout(login.limit)
    this.#toCheck.delete(login)
    this.#toRefuse.delete(login)
    return true
  }
}

const keyOf = ({ source, id }: Pick<Login, 'source' | 'id'>) => `${source} ${id}`

/** A promise that is settled later, from outside. */
interface Later<T> {
  promise: Promise<T>
  settle: (value: T | Promise<T>) => void
}

function later<T>(): Later<T> {
  let settle: Later<T>['settle'] = () => {}
  const promise = new Promise<T>((resolve) => {
    settle = resolve
  })
  return { promise, settle }
}
