/** Whose turn is next: sources take turns, and so do the names of a source. No step looks through all that wait. */

/** What waits for its turn. */
export interface Waiting {
  /** Who sent it. */
  source: string
  /** The user that it claims to be. */
  name: string
  /** Of one name and source the highest comes first. Drawn at random, so that no guesser can time it. */
  lot: number
}

/** How many may wait. */
interface Bounds {
  ofName: number
  ofSource: number
  inAll: number
}

const none: Bounds = { ofName: Infinity, ofSource: Infinity, inAll: Infinity }

interface Source<T> {
  /** By name, the next one first; of each the oldest first. */
  names: Map<string, T[]>
  size: number
}

export class Turns<T extends Waiting> {
  readonly #bounds: Bounds
  /** The next one first: a Map keeps the order in which its keys were set. */
  readonly #sources = new Map<string, Source<T>>()
  #size = 0

  constructor(bounds: Bounds = none) {
    this.#bounds = bounds
  }

  get size(): number {
    return this.#size
  }

  /**
   * Adds one to those that wait. If they are too many, gives the one that must go: of the same name the oldest; else the oldest of the
   * name that would be next, which has waited longest.
   */
  add(item: T): T | undefined {
    const source = this.#sources.get(item.source) ?? { names: new Map<string, T[]>(), size: 0 }
    const items = source.names.get(item.name) ?? []
    items.push(item)
    source.names.set(item.name, items)
    source.size++
    this.#sources.set(item.source, source)
    this.#size++
    const surplus = this.#surplus(source, items)
    if (surplus) this.delete(surplus)
    return surplus
  }

  /** Takes the next one out. */
  next(): T | undefined {
    const [source] = this.#sources.values()
    if (!source) return undefined
    const item = nextOf(source).reduce((best, one) => (one.lot > best.lot ? one : best))
    this.delete(item)
    toEnd(source.names, item.name)
    toEnd(this.#sources, item.source)
    return item
  }

  /** Takes one out, if it waits. */
  delete(item: T): void {
    const source = this.#sources.get(item.source)
    const items = source?.names.get(item.name) ?? []
    const at = items.indexOf(item)
    if (!source || at < 0) return
    items.splice(at, 1)
    if (items.length === 0) source.names.delete(item.name)
    source.size--
    if (source.size === 0) this.#sources.delete(item.source)
    this.#size--
  }

  #surplus(source: Source<T>, items: T[]): T | undefined {
    const { ofName, ofSource, inAll } = this.#bounds
    if (items.length > ofName) return items[0]
    if (source.size > ofSource) return nextOf(source)[0]
    if (this.#size <= inAll) return undefined
    const [longest = source] = this.#sources.values()
    return nextOf(longest)[0]
  }
}

function nextOf<T>({ names }: Source<T>): T[] {
  const [items = []] = names.values()
  return items
}

function toEnd<V>(map: Map<string, V>, key: string): void {
  const value = map.get(key)
  if (value === undefined) return
  map.delete(key)
  map.set(key, value)
}
