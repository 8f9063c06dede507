/** Checks logins against a bcrypt file, two at a time, on threads of their own, and remembers them. */
import { createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { clean, type Log } from '../log.ts'
import { bounded } from '../runtime/bounded.ts'
import { follow, textOf } from '../runtime/files.ts'

/** `busy`: too many checks wait, and the source of this one has failed lately. */
export type Check = 'right' | 'wrong' | 'busy'

type Users = ReadonlyMap<string, string>

/** How long a login is remembered (a right one only until the file changes), and how long a source counts as failed lately. */
const rememberedMs = { right: 3_600_000, wrong: 60_000 }
const maxRemembered = 10_000
const maxThreads = 2
/** Checks of suspect sources that may wait. */
const maxWaiting = 20
/** After the check of a suspect source, the next one waits this many times as long as the check took. */
const restFactor = 5

/** A hash of this cost, of a password that nobody knows. */
const hashOfNobody = (cost: number) =>
  `$2b$${`${cost}`.padStart(2, '0')}$abcdefghijklmnopqrstuu5Ls8dVrS3mYyNnUbkRCvY1aG2J1gWq2`

const costOf = (hash: string) => Number(hash.slice(4, 6))

/**
 * The hashes to check for a login, the user's own first. All together they take as long for every user, known or not: each cost
 * takes twice as long as the one below it, so a hash of cost 8 and others of 8 and 9 take as long as one of 10.
 */
export function hashesFor(users: Users, user: string): string[] {
  const highest = Math.max(...[...users.values()].map(costOf))
  const own = users.get(user)
  if (own === undefined) return [hashOfNobody(highest)]
  const fill = Array.from({ length: highest - costOf(own) }, (_, i) => hashOfNobody(costOf(own) + i))
  return [own, ...fill]
}

/** `USER:HASH` lines, as `htpasswd -B` writes them. Throws an Error whose message ends the sentence "FILE …". */
export function readUsers(path: string): Users {
  const users = new Map<string, string>()
  for (const [i, line] of textOf(path).split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const [, user, hash] = /^([^:]+):(\$2[aby]\$(?:0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53})$/.exec(line.trim()) ?? []
    if (!user || !hash)
      throw new Error(`must have a user and a bcrypt hash in each line (htpasswd -B), not so line ${i + 1}`)
    users.set(user, hash)
  }
  if (users.size === 0) throw new Error('has no user')
  return users
}

/** The network of an address. An IPv6 host has a whole /64 (RFC 4291, section 2.5.4), so a new address for each guess. */
export function networkOf(address: string): string {
  const [head = [], tail = []] = address.split('::').map((part) => part.split(':'))
  const zeros = address.includes('::') ? Array(8 - head.length - tail.length).fill('0') : []
  return [...head, ...zeros, ...tail].slice(0, 4).join(':')
}

/** One login to be checked. All who send the same login share it; its source is the last one that did. */
interface Job {
  name: string
  password: string
  hashes: string[]
  source: string
  check: Promise<Check>
  done: (check: Check | Promise<Check>) => void
}

/** Checks in the order they came. A source that failed lately is suspect: its checks run only if no other waits, with rests. */
export class Passwords {
  readonly #now: () => number
  readonly #log: Log
  readonly #known
  readonly #failures
  readonly #inFlight = new Map<string, Job>()
  #waiting: Job[] = []
  readonly #idleThreads: Worker[] = []
  #running = 0
  #restUntil = 0
  #users: Users
  /** Logins are remembered as hashes under this key. It dies with the process, and with the users. */
  #key = randomBytes(32)

  /** Throws an Error if the file cannot be read. Reads it again when it changes. */
  constructor(path: string, now: () => number, log: Log) {
    this.#now = now
    this.#log = log
    this.#known = bounded<Check>(maxRemembered, rememberedMs.wrong, now)
    this.#failures = bounded<number>(maxRemembered, rememberedMs.wrong, now)
    const use = (users: Users) => {
      this.#users = users
      this.#key = randomBytes(32)
      log('info', 'users read anew', { users: users.size })
    }
    const failed = (cause: string) =>
      log('warn', 'HTPASSWD_FILE cannot be read anew, the users stay as they were', { cause })
    this.#users = follow([path], () => readUsers(path), use, failed)
  }

  /** Whether a login is right; `address` is where it came from. */
  async check(user: string, password: string, address: string): Promise<Check> {
    const source = networkOf(address)
    const name = createHmac('sha256', this.#key)
      .update(JSON.stringify([user, password]))
      .digest('base64')
    const known = this.#known.get(name)
    if (known) return known
    const job = this.#inFlight.get(name) ?? this.#add(name, password, hashesFor(this.#users, user), source)
    // If it waits for a suspect source, it now waits for this source.
    if (this.#isSuspect(job)) job.source = source
    this.#shed()
    this.#pump()
    const check = await job.check
    if (check === 'busy') return check
    this.#known.set(name, check, { ttl: rememberedMs[check] })
    if (check === 'wrong') {
      this.#failures.set(source, (this.#failures.get(source) ?? 0) + 1)
      this.#shed()
      this.#log('warn', 'wrong login', { user: clean(user), client: address, failures: this.#failures.get(source) })
    }
    return check
  }

  #isSuspect({ source }: Job): boolean {
    return this.#failures.has(source)
  }

  #add(name: string, password: string, hashes: string[], source: string): Job {
    let done: Job['done'] = () => {}
    const result = new Promise<Check>((resolve) => {
      done = resolve
    })
    const check = result.finally(() => this.#inFlight.delete(name))
    const job = { name, password, hashes, source, check, done }
    this.#inFlight.set(name, job)
    this.#waiting.push(job)
    return job
  }

  /** Turns away the checks of suspect sources that are too many. */
  #shed(): void {
    const tooMany = new Set(this.#waiting.filter((job) => this.#isSuspect(job)).slice(maxWaiting))
    this.#waiting = this.#waiting.filter((job) => !tooMany.has(job))
    for (const { done } of tooMany) done('busy')
  }

  /** Begins as many checks as may run now. */
  #pump(): void {
    while (this.#running < maxThreads) {
      const trusted = this.#waiting.find((job) => !this.#isSuspect(job))
      const maySuspect = this.#running === 0 && this.#now() >= this.#restUntil
      const job = trusted ?? (maySuspect ? this.#waiting[0] : undefined)
      if (!job) return
      this.#waiting = this.#waiting.filter((one) => one !== job)
      job.done(this.#perform(job, !trusted))
    }
  }

  async #perform({ password, hashes }: Job, isSuspect: boolean): Promise<Check> {
    this.#running++
    const startedAt = this.#now()
    const thread = this.#idleThreads.pop() ?? new Worker(new URL('./bcrypt.js', import.meta.url))
    thread.unref()
    const answer = once(thread, 'message')
    thread.postMessage([password, hashes])
    try {
      const [matches] = await answer
      this.#idleThreads.push(thread)
      return matches ? 'right' : 'wrong'
    } finally {
      this.#running--
      if (isSuspect) this.#rest((this.#now() - startedAt) * restFactor)
      this.#pump()
    }
  }

  #rest(milliseconds: number): void {
    this.#restUntil = this.#now() + milliseconds
    // A timer may fire a little early.
    setTimeout(() => this.#pump(), milliseconds + 2)
  }
}
