/** Which copies run, and which wait their turn: fair to all clients, whatever one of them asks for. */
import { type Copied, type Copy, type CopySettings, endSession, Job, type OnCopy } from './copy.ts'

/** Copies at a time. One source gets half of them: as many as are left. */
const maxCopies = 16
/** How long a client waits for a copy. The copy goes on without it. */
const clientSeconds = 20
/** A copy on its way. */
interface Running {
  job: Job
  ended: Promise<Copied>
}

export class Copier {
  readonly #settings: CopySettings
  readonly #onCopy: OnCopy
  /** The copies in flight, by digest; the oldest first. */
  readonly #inFlight = new Map<string, Running>()
  /** Called when one ends, or its client leaves. */
  #wake: (() => void)[] = []

  constructor(settings: CopySettings, onCopy: OnCopy) {
    this.#settings = settings
    this.#onCopy = onCopy
  }

  /**
   * Copies. If the same blob is being copied, or too many are, it waits its turn with `waitsItsTurn`, and is `unused` without.
   * Settles at the latest when the client has waited long enough, or has left.
   */
  copy(copy: Copy, waitsItsTurn = false): Promise<Copied> {
    const job = new Job(copy, this.#settings, this.#onCopy)
    const copied = this.#takeTurn(job, waitsItsTurn).then((copied) => {
      if (copied.state === 'unused' && !job.clientWaits) endSession(copy.registries.hosted, copy.session, copy.ask)
      return copied
    })
    return new Promise((resolve, reject) => {
      const leave = () => {
        resolve(job.leaveClient())
        this.#notify()
      }
      const timer = setTimeout(leave, Math.min(clientSeconds, this.#settings.writeTimeout) * 1000)
      if (copy.client.aborted) leave()
      else copy.client.addEventListener('abort', leave, { once: true })
      const end = () => {
        clearTimeout(timer)
        copy.client.removeEventListener('abort', leave)
      }
      copied.finally(end).then(resolve, reject)
    })
  }

  /** Settles when the copies in flight have ended, also those whose client waits no more. */
  settled(): Promise<unknown> {
    return Promise.all([...this.#inFlight.values()].map(({ ended }) => ended))
  }

  async #takeTurn(job: Job, waitsItsTurn: boolean): Promise<Copied> {
    const { digest, source } = job.copy
    const isTaken = () => this.#inFlight.has(digest)
    while (job.clientWaits && (isTaken() || !this.#hasPlace(source))) {
      const yielding = isTaken() ? undefined : this.#withoutClient(source)
      yielding?.job.abandon()
      if (yielding) await yielding.ended
      else if (waitsItsTurn) await new Promise<void>((resolve) => this.#wake.push(resolve))
      else break
    }
    if (!job.clientWaits || isTaken() || !this.#hasPlace(source)) return { state: 'unused', answers: [] }
    const ended = job.perform().finally(() => {
      this.#inFlight.delete(digest)
      this.#notify()
    })
    this.#inFlight.set(digest, { job, ended })
    return ended
  }

  /** A source may have as many as are left, so some are always left for others. */
  #hasPlace(source: string): boolean {
    const own = [...this.#inFlight.values()].filter(({ job }) => job.copy.source === source)
    return own.length < maxCopies - this.#inFlight.size
  }

  /** A copy that nobody waits for any more gives way: one of the same source first. */
  #withoutClient(source: string): Running | undefined {
    const idle = [...this.#inFlight.values()].filter(({ job }) => !job.clientWaits)
    return idle.find(({ job }) => job.copy.source === source) ?? idle[0]
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake()
  }
}
