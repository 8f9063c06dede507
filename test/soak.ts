/**
 * `npm run soak -- MINUTES [node|bun|deno|binary]`: runs random pulls and pushes through three replicas behind a
 * balancer, while registries and replicas are killed and started again.
 *
 * It is not part of `npm test`. The exit code is 1 if a transfer was wrong or lost, if a replica logged an error, or if
 * a request or a socket was left at the end.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { balance } from './parts/balancer.ts'
import { temporaryFolder } from './parts/children.ts'
import { digestOfStream, noise, pushBlob, send } from './parts/client.ts'
import { newLoad, pullOnce, pushOnce, type Stored } from './parts/load.ts'
import { createRandom } from './parts/random.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { type Router, startRouter, type Way } from './parts/router.ts'

const minutes = Number(process.argv[2] ?? 20)
const way = (process.argv[3] ?? 'node') as Way
const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
const random = createRandom(seed)
const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const mebibyte = 1024 * 1024

const folder = temporaryFolder()
const launch = await findRegistry(console.log)
const hub = await launch({ name: 'hub', folder })
const cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
const hosted = await launch({ name: 'hosted', folder })
const launchReplica = () => startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host })
/** The last one is never killed: its memory and its sockets are measured. */
const replicas = [await launchReplica(), await launchReplica(), await launchReplica()]
const witness = replicas[2] as Router
const balancer = await balance(() => replicas.map(({ host }) => Number(host.split(':')[1])))

const sizes = [1, 64, 4096, 65_536, mebibyte, 4 * mebibyte, 9 * mebibyte]
const hostedBlobs: Stored[] = []
const publicBlobs: Stored[] = []
for (const [i, bytes] of sizes.entries()) {
  const digest = await digestOfStream(noise(bytes, i + 1))
  hostedBlobs.push({ name: `team/soak${i}`, digest })
  publicBlobs.push({ name: `public/soak${i}`, digest })
  await pushBlob(hosted.url, `team/soak${i}`, digest, noise(bytes, i + 1))
  await pushBlob(hub.url, `public/soak${i}`, digest, noise(bytes, i + 1))
}

/** Resident memory of the witness, in MiB. */
const memoryMiB = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${witness.pid}/status`, 'utf8'))?.[1]) / 1024
/** The number of open sockets of the witness. */
const countSockets = () => {
  const isSocket = (fd: string) => {
    try {
      return readlinkSync(`/proc/${witness.pid}/fd/${fd}`).startsWith('socket:')
    } catch {
      return false
    }
  }
  return readdirSync(`/proc/${witness.pid}/fd`).filter(isSocket).length
}

const load = newLoad()
const killed = { registries: 0, replicas: 0 }
const errors: unknown[] = []
const endMs = Date.now() + minutes * 60_000
const atRest = { sockets: countSockets(), memoryMiB: memoryMiB() }

async function client(): Promise<void> {
  while (Date.now() < endMs) {
    const i = Math.floor(random() * sizes.length)
    if (random() < 0.6) await pullOnce(load, balancer.url, (random() < 0.5 ? hostedBlobs : publicBlobs)[i] as Stored)
    else await pushOnce(load, balancer.url, hostedBlobs[i] as Stored, sizes[i] as number, i + 1)
  }
}

async function killer(): Promise<void> {
  while (Date.now() < endMs) {
    await sleep(2000 + random() * 6000)
    if (random() < 0.5) {
      const registry = pick<Registry>([hosted, cache])
      await registry.stop('SIGKILL')
      await sleep(random() * 1500)
      await registry.start()
      killed.registries++
    } else {
      const i = pick([0, 1])
      const old = replicas[i] as Router
      await old.stop(pick(['SIGKILL', 'SIGTERM']))
      errors.push(...old.odd())
      replicas[i] = await launchReplica()
      killed.replicas++
    }
  }
}

const clients = Array.from({ length: 8 }, client)
const killing = killer()
await sleep(Math.min(60_000, minutes * 15_000))
const warmMiB = memoryMiB()
await Promise.all([...clients, killing])
balancer.close()

// Bun keeps idle connections to the registries for up to five minutes. A socket still open after six is a leak.
const socketsDeadlineMs = Date.now() + 360_000
while (countSockets() > atRest.sockets && Date.now() < socketsDeadlineMs) await sleep(500)
errors.push(...witness.odd())
const metrics = (await send(witness.url, 'GET', '/metrics')).body.toString()
const report = {
  way,
  minutes,
  seed,
  killed,
  ...load,
  errors,
  inFlightAtEnd: Number(/_in_flight (\d+)/.exec(metrics)?.[1]) - 1,
  leakedSockets: Math.max(0, countSockets() - atRest.sockets - 1),
  memoryMiB: { atRest: Math.round(atRest.memoryMiB), warm: Math.round(warmMiB), end: Math.round(memoryMiB()) },
}
console.log(JSON.stringify(report, null, 2))
for (const part of [...replicas, hub, cache, hosted]) await part.stop('SIGKILL')
const bad = load.wrong.length + load.lost.length + errors.length + report.inFlightAtEnd + report.leakedSockets
process.exit(bad > 0 ? 1 : 0)
