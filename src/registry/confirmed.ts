/** Whether a registry answers at an address, and not only a balancer: asked for `/v2/`, and remembered. */
import type { Fetch } from '../runtime/runtime.ts'
import { Shortage } from '../runtime/shortage.ts'
import { isUp } from './answer.ts'
import { readOciError } from './errors.ts'
import { isHtml } from './verdict.ts'

/** How long a yes is remembered, and a no. */
const confirmedMs = 60_000
const unconfirmedMs = 1000

interface Asking {
  fetch: Fetch
  /** Milliseconds. */
  now: () => number
  /** Seconds. */
  readTimeout: number
}

export class Confirmed {
  readonly #url: string
  readonly #asking: Asking
  #last: { until: number; isRegistry: Promise<boolean> } | undefined

  /** `url`: the address of its `/v2/`. */
  constructor(url: string, asking: Asking) {
    this.#url = url
    this.#asking = asking
  }

  /** Rejects with a `Shortage` if it could not be asked. */
  isRegistry(): Promise<boolean> {
    const now = this.#asking.now()
    if (!this.#last || this.#last.until <= now) {
      const last = { until: now + confirmedMs, isRegistry: this.#ask() }
      this.#last = last
      const holdFor = (milliseconds: number) => {
        last.until = this.#asking.now() + milliseconds
      }
      last.isRegistry.then(
        (isRegistry) => isRegistry || holdFor(unconfirmedMs),
        () => holdFor(0),
      )
    }
    return this.#last.isRegistry
  }

  async #ask(): Promise<boolean> {
    const { fetch, readTimeout } = this.#asking
    const signal = AbortSignal.timeout(Math.ceil(readTimeout * 1000))
    const asked = { method: 'GET', headers: { 'accept-encoding': 'identity' }, signal }
    const reply = await fetch(this.#url, asked).catch((error) => {
      if (error instanceof Shortage) throw error
    })
    if (!reply) return false
    const error = await readOciError(reply)
    return isUp(reply) && !isHtml(reply.headers) && !(reply.status === 200 && error)
  }
}
