/** A cache within bounds of size and time: the least recently used entry goes first. */
import { LRUCache } from 'lru-cache'

/** A longer key counts as several entries, since clients can make keys long. */
const keyLength = 512

/**
 * At most `maxEntries`, each for `ttlMs` of the clock `now` (0: without end). With a `sizeCalculation` in `more`, `maxEntries`
 * counts the sizes.
 */
export function bounded<V extends {}>(
  maxEntries: number,
  ttlMs: number,
  now: () => number,
  more: Partial<LRUCache.OptionsBase<string, V, unknown>> = {},
): LRUCache<string, V> {
  const time = { ttl: ttlMs, ttlResolution: 0, perf: { now } }
  // `max` would take the room for all entries at once: for 20,000 that is 5 ms and 1 MiB.
  return new LRUCache<string, V>({
    ...time,
    maxSize: maxEntries,
    sizeCalculation: (_, key) => 1 + Math.floor(key.length / keyLength),
    ...more,
  })
}
