/** Tells the log of wrong logins: of each source the first one at once, and those of the next seconds in one line. */
import { clean, type Log } from '../log.ts'

/** Sources with lines of their own. The rest of an interval's share one. */
const maxSources = 100

interface Failed {
  user: string
  client: string
  failures: number
}

export class Failures {
  readonly #log: Log
  readonly #intervalMs: number
  readonly #bySource = new Map<string, Failed>()

  constructor(log: Log, intervalMs = 10_000) {
    this.#log = log
    this.#intervalMs = intervalMs
  }

  add(source: string, user: string, client: string): void {
    const isListed = this.#bySource.has(source) || this.#bySource.size < maxSources
    const key = isListed ? source : 'others'
    const { failures = 0 } = this.#bySource.get(key) ?? {}
    const failed = { user: clean(user), client, failures: failures + 1 }
    this.#bySource.set(key, failed)
    if (failures > 0) return
    this.#say(failed)
    if (this.#bySource.size === 1) setTimeout(() => this.#sayRest(), this.#intervalMs).unref()
  }

  #sayRest(): void {
    const all = [...this.#bySource.values()]
    this.#bySource.clear()
    for (const failed of all) if (failed.failures > 1) this.#say(failed)
  }

  #say({ user, client, failures }: Failed): void {
    this.#log('warn', 'wrong login', { user, client, failures })
  }
}
