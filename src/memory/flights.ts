/** Questions in flight: all who ask the same at the same time get one answer. */
import { type Answer, goneAnswer, type Registry } from '../registry/answer.ts'

/** Asks; `signal` is aborted when nobody waits for the answer any more. */
export type AskWith = (signal: AbortSignal) => Promise<Answer>

interface Flight {
  answer: Promise<Answer>
  waiting: Set<AbortSignal>
  end: () => void
}

export class Flights {
  readonly #flights = new Map<string, Flight>()
  readonly #onUse: (isShared: boolean) => void

  /** `onUse` is called for each question, with whether it joined one in flight. */
  constructor(onUse: (isShared: boolean) => void) {
    this.#onUse = onUse
  }

  /** Asks once for all who come with the same key. The question ends when the last of them has left. */
  async share(key: string, from: Registry, client: AbortSignal, ask: AskWith): Promise<Answer> {
    const running = this.#flights.get(key)
    this.#onUse(running !== undefined)
    const flight = running ?? this.#begin(key, ask)
    flight.waiting.add(client)
    const leave = () => {
      flight.waiting.delete(client)
      if (flight.waiting.size === 0) flight.end()
    }
    const answer = await new Promise<Answer>((resolve, reject) => {
      const gone = () => {
        leave()
        resolve(goneAnswer(from))
      }
      if (client.aborted) gone()
      else client.addEventListener('abort', gone, { once: true })
      flight.answer.then(resolve, reject)
    })
    if (!running) return answer
    // If the answer is only for the first who asked, each of the others asks again.
    const ownOf = (shared: Answer) => {
      if (isShareable(shared)) return shared
      leave()
      return ask(client)
    }
    const { later } = answer
    return later ? { ...answer, later: { ...later, answer: later.answer.then(ownOf) } } : ownOf(answer)
  }

  #begin(key: string, ask: AskWith): Flight {
    const abort = new AbortController()
    const forget = () => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key)
    }
    const flight: Flight = {
      answer: ask(abort.signal).finally(forget),
      waiting: new Set(),
      end: () => {
        forget()
        abort.abort()
      },
    }
    this.#flights.set(key, flight)
    return flight
  }
}

/** A body that streams can be read only once, and a cookie is for one client. */
function isShareable(answer: Answer): boolean {
  const { verdict, content, response } = answer
  return !beginsSession(answer) && (verdict !== 'found' || content !== undefined || !response?.body)
}

/** Whether an answer has a cookie that is for its client. */
export function beginsSession({ from, headers }: Pick<Answer, 'from' | 'headers'>): boolean {
  return from.forwardsLogin && headers.has('Set-Cookie')
}
