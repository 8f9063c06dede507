/** How a lookup asks one registry: together with all who ask the same at the same time, if it is for a manifest. */
import type { LookupMemory } from '../memory/memory.ts'
import type { Reading } from '../memory/reading.ts'
import type { Answer, Registry } from '../registry/answer.ts'
import { askAs, type Exchange } from './exchange.ts'

/** Asks one of the registries, by this method. */
export type Look = (registry: Registry, method: string) => Promise<Answer>

/** `decides`: whether no other registry may answer in place of this one. */
export function lookerOf(
  memory: LookupMemory,
  exchange: Exchange,
  reading: Reading,
  decides: (registry: Registry) => boolean,
): Look {
  const { request, matched, client, room } = exchange
  const ask = askAs(exchange)
  if (matched.route.entity !== 'manifest')
    return (registry, method) => ask(registry, { method, read: 'error', purpose: 'lookup' })
  return async (registry, method) => {
    // Before it is shared: if the fields are too long, only the client that sent them gets the 431.
    const headers = registry.fieldsFor(request, client)
    const purpose = decides(registry) ? 'deciding' : 'lookup'
    const asker = { signal: request.signal, room }
    return memory.askTogether(registry, method, reading, asker, (signal, room, fields) =>
      ask(registry, { method, headers, read: 'error', purpose, signal, room }, fields),
    )
  }
}
