/** Who a user is: logins checked against a bcrypt file, two at a time, on threads of their own, and remembered for a minute. */
import { createHmac, randomBytes } from 'node:crypto'
import { Worker } from 'node:worker_threads'
import { LRUCache } from 'lru-cache'
import { follow, textOf } from './files.ts'
import type { Log } from './log.ts'

/** `busy`: too many wait, and this one has failed lately. */
export type Check = 'right' | 'wrong' | 'busy'

export type Passwords = (user: string, password: string, source: string) => Promise<Check>

type Users = ReadonlyMap<string, string>

const minute = 60_000
const threads = 2
const mostWaiting = 20
/** Checks of one source that may wait before it counts as one that failed. */
const mostOfOne = 4
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
    const [, user, hash] = /^([^:]+):(\$2[aby]\$\d\d\$[./A-Za-z0-9]{53})$/.exec(line.trim()) ?? []
    if (!user || !hash)
      throw new Error(`must have a user and a bcrypt hash in each line (htpasswd -B), not so line ${i + 1}`)
    users.set(user, hash)
  }
  return users
}

export function createPasswords(path: string, now: () => number, log: Log): Passwords {
  const time = { ttl: minute, ttlResolution: 0, perf: { now } }
  const known = new LRUCache<string, Check>({ ...time, max: 10_000 })
  const failures = new LRUCache<string, number>({ ...time, max: 10_000 })
  const under = new Map<string, Promise<Check>>()
  const waiting = new Map<string, number>()
  // A login is remembered as a hash under a key that dies with the process.
  const key = randomBytes(32)
  const use = (read: Users) => {
    users = read
    known.clear()
    log('info', 'users read anew', { users: users.size })
  }
  const failed = (cause: string) =>
    log('warn', 'HTPASSWD_FILE cannot be read anew, the users stay as they were', { cause })
  follow([path], () => readUsers(path), use, failed)
  let users = readUsers(path)

  const verify = createQueue(now)
  return async (user, password, source) => {
    const name = createHmac('sha256', key)
      .update(JSON.stringify([user, password]))
      .digest('base64')
    const remembered = known.get(name)
    if (remembered) return remembered
    const ofThis = waiting.get(source) ?? 0
    const suspect = failures.has(source) || ofThis >= mostOfOne
    const checking = under.get(name) ?? verify(password, users.get(user) ?? nobody(users), suspect)
    if (!checking) return 'busy'
    under.set(name, checking)
    waiting.set(source, ofThis + 1)
    const current = users
    const check = await checking.finally(() => {
      under.delete(name)
      const left = (waiting.get(source) ?? 1) - 1
      if (left > 0) waiting.set(source, left)
      else waiting.delete(source)
    })
    if (current === users) known.set(name, check)
    if (check === 'wrong') {
      failures.set(source, (failures.get(source) ?? 0) + 1)
      log('warn', 'wrong login', { user, client: source, failures: failures.get(source) })
    }
    return check
  }
}

/** Checks in order; those of sources that failed lately only while nobody else is checked, with rests in between. */
function createQueue(now: () => number) {
  interface Job {
    password: string
    hash: string
    suspect: boolean
    done: (check: Check) => void
    failed: (error: unknown) => void
  }
  const trusted: Job[] = []
  const suspects: Job[] = []
  const idle: Worker[] = []
  let running = 0
  let restUntil = 0

  function pump(): void {
    while (running < threads) {
      const job = trusted.shift() ?? (running === 0 && now() >= restUntil ? suspects.shift() : undefined)
      if (!job) return
      running++
      perform(job)
        .then(job.done, job.failed)
        .finally(() => {
          running--
          pump()
        })
    }
  }

  async function perform({ password, hash, suspect }: Job): Promise<Check> {
    const began = now()
    const thread = idle.pop() ?? new Worker(new URL('./bcrypt.js', import.meta.url))
    thread.unref()
    const matches = await new Promise<boolean>((resolve, reject) => {
      thread.once('message', resolve).once('error', reject)
      thread.postMessage([password, hash])
    })
    thread.removeAllListeners('error')
    idle.push(thread)
    if (suspect) {
      const rest = (now() - began) * restFactor
      restUntil = now() + rest
      // A timer may be a little early.
      setTimeout(pump, rest + 2)
    }
    return matches ? 'right' : 'wrong'
  }

  return (password: string, hash: string, suspect: boolean): Promise<Check> | undefined => {
    if (suspect && trusted.length + suspects.length >= mostWaiting) return undefined
    return new Promise((done, failed) => {
      ;(suspect ? suspects : trusted).push({ password, hash, suspect, done, failed })
      pump()
    })
  }
}
