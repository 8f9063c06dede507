/** Load for the soak test and the process tests: pulls and pushes of blobs with retries, every digest checked. */
import { download, noise, pathOf, send, withDigest } from './client.ts'

export interface Load {
  requests: number
  /** The number of failed tries, by error. Each was tried again. */
  failures: Record<string, number>
  /** The pulls and pushes that failed ten times. */
  lost: string[]
  /** The pulls that ended as a success but had the wrong content. */
  wrong: string[]
}

/** A blob in a registry. */
export interface Stored {
  name: string
  digest: string
}

export const newLoad = (): Load => ({ requests: 0, failures: {}, lost: [], wrong: [] })

/** Tries up to ten times, with pauses from 0.1 to 3.2 seconds. */
async function withRetries(load: Load, what: string, attempt: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 10; tries++) {
    load.requests++
    const cause = await attempt().then(
      (done) => (done ? undefined : 'refused'),
      (error: NodeJS.ErrnoException) => error.code ?? error.message,
    )
    if (!cause) return
    load.failures[cause] = (load.failures[cause] ?? 0) + 1
    await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** Math.min(tries, 5)))
  }
  load.lost.push(what)
}

/** Pulls one blob, with retries; notes the result in `load`. */
export function pullOnce(load: Load, url: string, { name, digest }: Stored): Promise<void> {
  return withRetries(load, `pull ${name}`, async () => {
    const got = await download(url, `/v2/${name}/blobs/${digest}`)
    if (got.status === 404) throw new Error('404 for what exists')
    if (got.status !== 200) throw new Error(`${got.status}`)
    if (got.digest !== digest) load.wrong.push(`pull ${name}: ${got.digest} instead of ${digest}`)
    return true
  })
}

/** Pushes one blob of `noise(bytes, seed)`, with retries; notes the result in `load`. */
export function pushOnce(load: Load, url: string, stored: Stored, bytes: number, seed: number): Promise<void> {
  const { name, digest } = stored
  const expectStatus = (status: number, wanted: number) => {
    if (status !== wanted) throw new Error(`${status}`)
  }
  return withRetries(load, `push ${name}`, async () => {
    const session = await send(url, 'POST', `/v2/${name}/blobs/uploads/`)
    expectStatus(session.status, 202)
    const patched = await send(url, 'PATCH', pathOf(session), { body: noise(bytes, seed) })
    expectStatus(patched.status, 202)
    expectStatus((await send(url, 'PUT', withDigest(pathOf(patched), digest))).status, 201)
    return true
  })
}
