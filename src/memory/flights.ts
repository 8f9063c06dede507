/** Questions in flight: all who ask the same at the same time get one answer. */
import { type Answer, goneAnswer, type Registry } from '../registry/answer.ts'
import { type Budget, Room } from '../runtime/budget.ts'

/** Asks; `signal` is aborted when nobody waits for the answer any more. What is read whole is held in `room`, as long as anybody needs it. */
export type AskWith<T = Answer> = (signal: AbortSignal, room?: Room) => Promise<T>

/** Who asks: it has left when `signal` is aborted, and needs the answer until `room` ends. */
export interface Asker {
  signal: AbortSignal
  room?: Room
}

interface Flight<T> {
  answer: Promise<T>
  waiting: Set<AbortSignal>
  room: Room
  end: () => void
}

/** What a client got of a flight; `isOwn`: it was the first that asked. */
interface Landed<T> {
  value: T
  isOwn: boolean
  leave: () => void
}

export class Flights<T = Answer> {
  readonly #flights = new Map<string, Flight<T>>()
  readonly #onUse: (isShared: boolean) => void
  readonly #budget: Budget

  /** `onUse` is called for each question, with whether it joined one in flight. */
  constructor(budget: Budget, onUse: (isShared: boolean) => void = () => {}) {
    this.#budget = budget
    this.#onUse = onUse
  }

  /** Asks once for all who come with the same key. The question ends when the last of them has left. Undefined if this one has left. */
  async join(key: string, { signal: client, room }: Asker, ask: AskWith<T>): Promise<Landed<T> | undefined> {
    const running = this.#flights.get(key)
    this.#onUse(running !== undefined)
    const flight = running ?? this.#begin(key, ask)
    room?.share(flight.room)
    flight.waiting.add(client)
    const leave = () => {
      flight.waiting.delete(client)
      if (flight.waiting.size === 0) flight.end()
    }
    return new Promise((resolve, reject) => {
      const gone = () => {
        leave()
        resolve(undefined)
      }
      if (client.aborted) gone()
      else client.addEventListener('abort', gone, { once: true })
      flight.answer.then((value) => resolve({ value, isOwn: !running, leave }), reject)
    })
  }

  #begin(key: string, ask: AskWith<T>): Flight<T> {
    const abort = new AbortController()
    const room = new Room(this.#budget)
    const forget = () => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key)
    }
    const flight: Flight<T> = {
      answer: ask(abort.signal, room).finally(() => {
        forget()
        room.end()
      }),
      waiting: new Set(),
      room,
      end: () => {
        forget()
        abort.abort()
      },
    }
    this.#flights.set(key, flight)
    return flight
  }
}

/** One answer of a registry for all who ask the same. If it is only for the first who asked, each of the others asks again. */
export async function askTogether(
  flights: Flights,
  key: string,
  from: Registry,
  asker: Asker,
  ask: AskWith,
): Promise<Answer> {
  const landed = await flights.join(key, asker, ask)
  if (!landed) return goneAnswer(from)
  const { value: answer, isOwn, leave } = landed
  if (isOwn) return answer
  const ownOf = (shared: Answer) => {
    if (isShareable(shared)) return shared
    leave()
    return ask(asker.signal, asker.room)
  }
  const { later } = answer
  if (!later) return ownOf(answer)
  let own: Promise<Answer> | undefined
  return {
    ...answer,
    later: {
      ...later,
      /** Lazy: only a caller that waits for the late answer asks again. */
      get answer() {
        own ??= later.answer.then(ownOf)
        return own
      },
    },
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
