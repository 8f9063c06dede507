/** Pulls and pushes at random, as clients that try again would, every digest checked. */
import { download, noise, pathOf, send, withDigest } from './client.ts'

export interface Load {
  requests: number
  /** What went wrong and was tried again, by what it looked like. */
  failures: Record<string, number>
  /** What could not be done in ten tries. */
  lost: string[]
  /** What looked whole and was not. */
  wrong: string[]
}

export interface Stored {
  name: string
  digest: string
}

export const newLoad = (): Load => ({ requests: 0, failures: {}, lost: [], wrong: [] })

/** Does one thing up to ten times, with the pauses of a patient client. */
async function patiently(load: Load, what: string, attempt: () => Promise<boolean>): Promise<void> {
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

export function pullOnce(load: Load, url: string, { name, digest }: Stored): Promise<void> {
  return patiently(load, `pull ${name}`, async () => {
    const got = await download(url, `/v2/${name}/blobs/${digest}`)
    if (got.status === 404) throw new Error('404 for what exists')
    if (got.status !== 200) throw new Error(`${got.status}`)
    if (got.digest !== digest) load.wrong.push(`pull ${name}: ${got.digest} instead of ${digest}`)
    return true
  })
}

export function pushOnce(load: Load, url: string, stored: Stored, bytes: number, seed: number): Promise<void> {
  const { name, digest } = stored
  const whole = (status: number, wanted: number) => {
    if (status !== wanted) throw new Error(`${status}`)
  }
  return patiently(load, `push ${name}`, async () => {
    const session = await send(url, 'POST', `/v2/${name}/blobs/uploads/`)
    whole(session.status, 202)
    const patched = await send(url, 'PATCH', pathOf(session), { body: noise(bytes, seed) })
    whole(patched.status, 202)
    whole((await send(url, 'PUT', withDigest(pathOf(patched), digest))).status, 201)
    return true
  })
}
