/** Questions under way: those who ask the same at the same time get one answer. */
import type { UpstreamName } from '../routing.ts'
import type { Config } from './config.ts'
import { hasSessions } from './headers.ts'
import type { Fields } from './runtime.ts'
import { type Answer, leaving, left } from './upstream.ts'

export type AskWith = (abort: AbortController, fields?: Fields) => Promise<Answer>

/** A question under way, and who waits for its answer. */
interface Flight {
  answer: Promise<Answer>
  waiting: Set<AbortSignal>
  end: () => void
}

/**
 * Gives the function that asks once for all who come with the same key; what `ask` gets is aborted when the last has left.
 * `onUse` is told whether somebody asked already.
 */
export function createFlights(config: Config, onUse: (shared: boolean) => void) {
  const flights = new Map<string, Flight>()
  return share

  async function share(key: string, upstream: UpstreamName, client: AbortSignal, ask: AskWith): Promise<Answer> {
    const under = flights.get(key)
    onUse(under !== undefined)
    const flight = under ?? begin(key, ask)
    flight.waiting.add(client)
    // The last one that leaves ends the question.
    const leave = () => {
      flight.waiting.delete(client)
      if (flight.waiting.size === 0) flight.end()
    }
    const answer = await new Promise<Answer>((resolve, reject) => {
      const gone = () => {
        leave()
        resolve(left(upstream))
      }
      if (client.aborted) gone()
      else client.addEventListener('abort', gone, { once: true })
      flight.answer.then(resolve, reject)
    })
    const ownOf = (shared: Answer) => {
      if (isShareable(shared, config)) return shared
      leave()
      return ask(leaving(client))
    }
    if (!under) return answer
    return answer.later ? { ...answer, later: answer.later.then(ownOf) } : ownOf(answer)
  }

  function begin(key: string, ask: AskWith): Flight {
    const abort = new AbortController()
    const over = () => {
      if (flights.get(key) === flight) flights.delete(key)
    }
    const flight: Flight = {
      answer: ask(abort).finally(over),
      waiting: new Set(),
      end: () => {
        over()
        abort.abort()
      },
    }
    flights.set(key, flight)
    return flight
  }
}

/** A body that was not read whole is for one client alone, and so is a cookie. */
function isShareable(answer: Answer, config: Config): boolean {
  const { verdict, content, response } = answer
  return !beginsSession(answer, config) && (verdict !== 'found' || content !== undefined || !response?.body)
}

/** Whether an answer has a cookie that is for its client. */
export function beginsSession({ upstream, response }: Answer, config: Config): boolean {
  return hasSessions(upstream, config) && response?.headers.has('Set-Cookie') === true
}
