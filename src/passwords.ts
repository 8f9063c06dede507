/** Who a user is: logins checked against a bcrypt file, two at a time, on threads of their own, and remembered. */
import { createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { bounded } from './bounded.ts'
import { follow, textOf } from './files.ts'
import { clean, type Log } from './log.ts'

/** `busy`: too many wait, and this one's source has failed lately. */
export type Check = 'right' | 'wrong' | 'busy'

export type Passwords = (user: string, password: string, source: string) => Promise<Check>

type Users = ReadonlyMap<string, string>

/** Milliseconds that a login is remembered for, a right one only until the file changes; and that a source has failed lately. */
const remembered = { right: 3_600_000, wrong: 60_000 }
const threads = 2
/** Checks of sources that failed lately that may wait. */
const mostWaiting = 20
/** What a check takes is what one of a source that failed lately has to wait, so many times over. */
const restFactor = 5
/** For users there are none of, so that they take as long: bcrypt of nothing anybody knows, at the first user's cost. */
const nobody = (users: Users) =>
  `${users.values().next().value?.slice(0, 7) ?? '$2b$10$'}abcdefghijklmnopqrstuu5Ls8dVrS3mYyNnUbkRCvY1aG2J1gWq2`

/** `USER:HASH` lines, as `htpasswd -B` writes them; throws an Error whose message ends the sentence "FILE …". */
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

/** Whose address it is: of IPv6 a host has all of a /64 (RFC 4291, section 2.5.4), and an address for each guess. */
function networkOf(address: string): string {
  const [head = [], tail = []] = address.split('::').map((part) => part.split(':'))
  const zeros = address.includes('::') ? Array(8 - head.length - tail.length).fill('0') : []
  return [...head, ...zeros, ...tail].slice(0, 4).join(':')
}

/** A login to be checked, on behalf of whoever asks for it first, or better. */
interface Job {
  password: string
  hash: string
  source: string
  check: Promise<Check>
  done: (check: Check | Promise<Check>) => void
}

/** Checks in order; those of sources that failed lately only while nobody else is checked, with rests in between. */
export function createPasswords(path: string, now: () => number, log: Log): Passwords {
  const known = bounded<Check>(10_000, remembered.wrong, now)
  const failures = bounded<number>(10_000, remembered.wrong, now)
  const under = new Map<string, Job>()
  let waiting: Job[] = []
  const idle: Worker[] = []
  let running = 0
  let restUntil = 0
  // A login is remembered as a hash under a key that dies with the process, or with the users it was checked by.
  let key = randomBytes(32)
  const use = (read: Users) => {
    users = read
    key = randomBytes(32)
    log('info', 'users read anew', { users: users.size })
  }
  const failed = (cause: string) =>
    log('warn', 'HTPASSWD_FILE cannot be read anew, the users stay as they were', { cause })
  let users = follow([path], () => readUsers(path), use, failed)

  return async (user, password, client) => {
    const source = networkOf(client)
    const name = createHmac('sha256', key)
      .update(JSON.stringify([user, password]))
      .digest('base64')
    const before = known.get(name)
    if (before) return before
    const job = under.get(name) ?? add(name, password, users.get(user) ?? nobody(users), source)
    // One that waits is asked for from here too: where it would wait for its own source alone, it does no more.
    if (isSuspect(job)) job.source = source
    shed()
    pump()
    const check = await job.check
    if (check === 'busy') return check
    known.set(name, check, { ttl: remembered[check] })
    if (check === 'wrong') {
      failures.set(source, (failures.get(source) ?? 0) + 1)
      shed()
      log('warn', 'wrong login', { user: clean(user), client, failures: failures.get(source) })
    }
    return check
  }

  function isSuspect({ source }: Job): boolean {
    return failures.has(source)
  }

  function add(name: string, password: string, hash: string, source: string): Job {
    const job = { password, hash, source } as Job
    const check = new Promise<Check>((done) => Object.assign(job, { done }))
    job.check = check.finally(() => under.delete(name))
    under.set(name, job)
    waiting.push(job)
    return job
  }

  /** Turns away what waits beyond its turn, now that a source has failed. */
  function shed(): void {
    const much = new Set(waiting.filter(isSuspect).slice(mostWaiting))
    waiting = waiting.filter((job) => !much.has(job))
    for (const { done } of much) done('busy')
  }

  function pump(): void {
    while (running < threads) {
      const trusted = waiting.find((job) => !isSuspect(job))
      const job = trusted ?? (running === 0 && now() >= restUntil ? waiting[0] : undefined)
      if (!job) return
      waiting = waiting.filter((one) => one !== job)
      job.done(perform(job, !trusted))
    }
  }

  async function perform({ password, hash }: Job, suspect: boolean): Promise<Check> {
    running++
    const began = now()
    const thread = idle.pop() ?? new Worker(new URL('./bcrypt.js', import.meta.url))
    thread.unref()
    const answer = once(thread, 'message')
    thread.postMessage([password, hash])
    try {
      const [matches] = await answer
      idle.push(thread)
      return matches ? 'right' : 'wrong'
    } finally {
      running--
      if (suspect) {
        const rest = (now() - began) * restFactor
        restUntil = now() + rest
        // A timer may be a little early.
        setTimeout(pump, rest + 2)
      }
      pump()
    }
  }
}
