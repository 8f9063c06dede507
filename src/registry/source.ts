/** Where the router's own login at a registry comes from: settings, a file, or a program. */
import type { Log } from '../log.ts'
import { outputOf } from '../runtime/command.ts'
import { follow, secretIn } from '../runtime/files.ts'

export interface Credentials {
  username: string
  password: string
}

/** The router's own login, as settings give it. */
export interface Login extends Credentials {
  /** A file that holds the password, read again when it changes; or empty. */
  file: string
}

/** Gives the login now, and each later one. */
export interface LoginSource {
  /** To be called once. `use` gets each login when it is there; undefined if there is none any more. */
  start: (use: (login: Credentials | undefined) => void) => void
  /** If a newer login may be had by asking for it: asks. Settles when the answer was used; at once if it was asked just now. */
  renew?: () => Promise<void>
}

/** A login that does not change. */
export function fixed(login: Credentials): LoginSource {
  return { start: (use) => use(login) }
}

/** A password in a file, read again when it changes. Throws as `secretIn` does when it is started. */
export function fromFile(username: string, file: string, log: Log): LoginSource {
  return {
    start: (use) => {
      const renewed = (password: string) => {
        use({ username, password })
        log('info', 'password read anew')
      }
      const failed = (cause: string) => log('warn', 'the new password cannot be read, the old one stays', { cause })
      use({ username, password: follow([file], () => secretIn(file), renewed, failed) })
    },
  }
}

const bounds = { maxBytes: 64 * 1024, seconds: 30 }
/** A refused login is asked for again at most so often. */
export const minRenewMs = 5000

export interface CommandOptions {
  /** The absolute path of a docker-credential-helper. */
  command: string
  /** What it is asked for: the registry's host, and its port if it is not the usual one. Docker Hub has a key of its own. */
  host: string
  intervalSeconds: number
  /** Milliseconds. */
  now: () => number
  log: Log
}

/** A login that a program gives (docker-credential-helpers, "Development"): asked for when it starts, and again now and then. */
export class CommandSource implements LoginSource {
  readonly #options: CommandOptions
  #use: (login: Credentials) => void = () => {}
  #last: Credentials | undefined
  #lastAt = 0
  #askedAt = Number.NEGATIVE_INFINITY
  #asking: Promise<void> | undefined
  #everyMs: number
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(options: CommandOptions) {
    this.#options = options
    this.#everyMs = options.intervalSeconds * 1000
  }

  start(use: (login: Credentials) => void): void {
    this.#use = use
    this.#ask()
    this.#schedule()
  }

  async renew(): Promise<void> {
    const { now } = this.#options
    if (!this.#asking && now() - this.#askedAt < minRenewMs) return
    const [refused, since] = [this.#last, this.#lastAt]
    await this.#ask()
    if (refused && this.#last !== refused) this.#expectLife(now() - since)
  }

  /** A login that was refused had ended: the next ones are asked for at half of its life, so that none is refused. */
  #expectLife(lifeMs: number): void {
    this.#everyMs = Math.min(this.#everyMs, Math.max(lifeMs / 2, minRenewMs))
    this.#schedule()
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#ask()
      this.#schedule()
    }, this.#everyMs).unref()
  }

  #ask(): Promise<void> {
    this.#asking ??= this.#askOnce().finally(() => {
      this.#asking = undefined
    })
    return this.#asking
  }

  async #askOnce(): Promise<void> {
    const { command, host, now, log } = this.#options
    this.#askedAt = now()
    try {
      const login = credentialsIn(await outputOf(command, ['get'], host, bounds))
      if (login.username === this.#last?.username && login.password === this.#last.password) return
      this.#last = login
      this.#lastAt = now()
      this.#use(login)
      log('info', 'new login from the command')
    } catch (error) {
      log('warn', 'the command gives no login, the old one stays', { cause: `it ${(error as Error).message}` })
    }
  }
}

/** The answer of a docker-credential-helper. Throws an Error whose message ends the sentence "it …" and holds no secret. */
export function credentialsIn(text: string): Credentials {
  let answer: { Username?: unknown; Secret?: unknown } | null
  try {
    answer = JSON.parse(text)
  } catch {
    throw new Error('printed no JSON')
  }
  const { Username: username, Secret: password } = answer ?? {}
  if (typeof username !== 'string' || typeof password !== 'string' || !username || !password)
    throw new Error('printed no Username or no Secret')
  if (username === '<token>') throw new Error('gives an identity token, which this router cannot use')
  // RFC 7617, section 2.
  if (username.includes(':')) throw new Error('gives a user name with a colon')
  return { username, password }
}
