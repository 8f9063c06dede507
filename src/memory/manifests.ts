/** Manifests kept whole by their digest, which is checked. */
import type { Answer, Registry } from '../registry/answer.ts'
import { hasDigest } from '../registry/digest.ts'
import { bounded } from '../runtime/bounded.ts'
import { beginsSession } from './flights.ts'
import type { Reading } from './reading.ts'
import type { Writes } from './writes.ts'

/** A manifest, whole. */
export interface Kept {
  from: Registry
  content: Uint8Array<ArrayBuffer>
  /** As a client gets them. */
  headers: [string, string][]
  type: string
  /** When its registry last said that it has it. */
  saidAt: number
}

const mebibyte = 1024 * 1024
/** Bytes that an entry takes besides its manifest, about. */
const overheadBytes = 1024

export class Manifests {
  readonly #now: () => number
  readonly #writes: Writes
  readonly #ttlOf: (from: Registry) => number
  readonly #kept

  /** `mebibytes`: how much is kept; 0 for nothing. `ttlOf`: milliseconds for which the manifests of a registry are kept. */
  constructor(mebibytes: number, ttlOf: (from: Registry) => number, now: () => number, writes: Writes) {
    this.#now = now
    this.#writes = writes
    this.#ttlOf = ttlOf
    // In one byte nothing has room.
    this.#kept = bounded<Kept>(Math.max(1, mebibytes * mebibyte), 0, now, {
      sizeCalculation: ({ content }, key) => content.byteLength + key.length + overheadBytes,
    })
  }

  get(reading: Reading, digest: string): Kept | undefined {
    return this.#kept.get(this.#key(reading, digest))
  }

  /** It counts as no use. */
  peek(reading: Reading, digest: string): Kept | undefined {
    return this.#kept.peek(this.#key(reading, digest))
  }

  /** Keeps an answer of 200 that was read whole, if it may be kept. */
  keep({ from, content, headers, ...rest }: Answer, reading: Reading, digest: string): void {
    const type = headers.get('Content-Type')
    if (!content || !type || beginsSession({ from, headers }) || !hasDigest(content, digest)) return
    const fields = from.fieldsFrom({ from, content, headers, ...rest }).filter(([name]) => name !== 'date')
    // One that came in chunks has no length. A HEAD that is answered from memory has no body that would tell it.
    if (!headers.has('Content-Length')) fields.push(['content-length', `${content.byteLength}`])
    this.#set(reading, digest, { from, content, headers: fields, type, saidAt: this.#now() })
  }

  /** Its registry has said that it still has it. */
  confirm(reading: Reading, digest: string): void {
    const kept = this.get(reading, digest)
    if (kept) this.#set(reading, digest, { ...kept, saidAt: this.#now() })
  }

  drop(reading: Reading, digest: string): void {
    this.#kept.delete(this.#key(reading, digest))
  }

  #set(reading: Reading, digest: string, kept: Kept): void {
    this.#kept.set(this.#key(reading, digest), kept, { ttl: this.#ttlOf(kept.from) })
  }

  #key({ name, query }: Reading, digest: string): string {
    return `${this.#writes.generationOf(name)} ${name} ${digest}${query}`
  }
}
