/** What is remembered within bounds: the least recently used entry goes first, and each when its time is up. */
import { LRUCache } from 'lru-cache'

/** At most `most` entries, each for `ttl` milliseconds of the clock `now` (0: without end). */
export function bounded<V extends {}>(
  most: number,
  ttl: number,
  now: () => number,
  more: Partial<LRUCache.OptionsBase<string, V, unknown>> = {},
): LRUCache<string, V> {
  const time = { ttl, ttlResolution: 0, perf: { now } }
  // With `max` the room for all entries is taken at once: for 20,000 that is 5 ms and 1 MiB.
  return new LRUCache<string, V>({ ...time, maxSize: most, sizeCalculation: () => 1, ...more })
}
