/** The bench's layers of 1 GiB: one at a time, and a hundred slow clients, over http and over https. */
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import * as client from '../test/parts/client.ts'
import { noise, send } from '../test/parts/client.ts'
import type { Way } from '../test/parts/router.ts'
import { type Scheme, tlsIn } from '../test/parts/schemes.ts'
import type { Target } from './parts.ts'
import * as parts from './parts.ts'
import * as stage from './stage.ts'
import { cache, direct, everyWay, everywhere, folder, goals, hosted, short } from './stage.ts'

const bytes = 1024 * stage.mebibyte

/** The registry itself, nginx and the routers. Over https each has a process of its own, and the registry stays http. */
async function targetsOver(scheme: Scheme): Promise<{ targets: Target[]; stop: () => Promise<void> }> {
  if (scheme === 'http') return { targets: stage.targets, stop: async () => {} }
  const tls = await tlsIn(folder)
  const nginx = await parts.launchNginx(folder, cache.host, hosted.host, tls)
  const started = [nginx, ...(await stage.launchEach(tls.settings))]
  const stop = async () => {
    for (const target of started) await target.stop()
  }
  return { targets: [direct, ...started], stop }
}

/** A pull and a push of 1 GiB, one at a time. */
export async function measureLayers(scheme: Scheme): Promise<void> {
  const over = scheme === 'https' ? ' over https' : ''
  await stage.part(`blobs${scheme === 'https' ? '-https' : ''}`, `A layer of 1 GiB${over}, one at a time`, async () => {
    const { targets, stop } = await targetsOver(scheme)
    const file = join(folder, 'layer')
    await pipeline(noise(bytes, 1), createWriteStream(file))
    const digest = await client.digestOfStream(noise(bytes, 1))
    await client.pushBlob(hosted.url, 'team/big', digest, noise(bytes, 1))
    const curl = async (target: Target, args: string[]) => {
      const before = parts.cpuSeconds(target)
      const seconds = await parts.secondsOf(['curl', '-sSfk', '--http1.1', '-o', '/dev/null', ...args])
      return { seconds, cpu: parts.cpuSeconds(target) - before, memory: parts.memoryMiB(target) }
    }
    const lines: (string | number)[][] = []
    const measure = async (
      what: string,
      wanted: Record<Way, number>,
      go: (target: Target) => ReturnType<typeof curl>,
    ) => {
      const results = await stage.alternate(targets, go)
      const toNginx = (name: string) => 1 / results.ratio(name, 'nginx', (sample) => sample.seconds)
      for (const { name } of targets) {
        lines.push([
          what,
          name,
          short(1024 / results.median(name, (sample) => sample.seconds)),
          short(1 / results.ratio(name, 'direct', (sample) => sample.seconds)),
          short(toNginx(name)),
          ...(name === 'direct' ? ['', ''] : [short(results.median(name, (sample) => sample.cpu))]),
          ...(name === 'direct' ? [] : [results.median(name, (sample) => sample.memory)]),
        ])
      }
      goals.push({ measure: `1 GiB ${what}${over}, against nginx`, wanted, got: toNginx })
    }
    await measure(
      'pull',
      scheme === 'http' ? { node: 0.6, bun: 0.9, deno: 0.7, binary: 0.9 } : everywhere(0.5),
      (target) => curl(target, [`${target.url}/v2/team/big/blobs/${digest}`]),
    )
    await measure('push', everywhere(scheme === 'http' ? 0.9 : 0.5), async (target) => {
      const session = await send(target.url, 'POST', '/v2/team/big/blobs/uploads/')
      const cost = await curl(target, ['-X', 'PATCH', '-T', file, target.url + client.pathOf(session)])
      await send(hosted.url, 'DELETE', client.pathOf(session))
      return cost
    })
    await stop()
    const head = ['1 GiB', 'through', 'MiB/s', 'to direct', 'to nginx', 'CPU s per GiB', 'memory MiB']
    return stage.table(head, lines)
  })
}

/** The memory of routers with 100 clients each that read 256 KiB a second. */
export async function measureSlow(scheme: Scheme): Promise<void> {
  const [name, over] = scheme === 'https' ? ['slow-https', ' over https'] : ['slow', '']
  await stage.part(name, `100 slow clients on layers of 1 GiB${over}, for two minutes`, async () => {
    const digest = await client.digestOfStream(noise(bytes, 2))
    await client.pushBlob(hosted.url, 'team/slow', digest, noise(bytes, 2))
    const settings = scheme === 'https' ? (await tlsIn(folder)).settings : {}
    const fresh = await stage.launchEach(settings)
    const sockets = fresh.flatMap(({ url }) =>
      Array.from({ length: 100 }, () => {
        const socket = parts.connect(scheme, Number(new URL(url).port))
        socket.write(`GET /v2/team/slow/blobs/${digest} HTTP/1.1\r\nHost: x\r\n\r\n`)
        const timer = setInterval(() => socket.read(65_536), 250)
        return socket.on('readable', () => {}).on('close', () => clearInterval(timer))
      }),
    )
    const started = performance.now()
    const rows: number[][] = []
    for (const second of [10, 60, 120]) {
      await new Promise((resolve) => setTimeout(resolve, started + second * 1000 - performance.now()))
      rows.push(fresh.map(parts.memoryMiB))
    }
    if (sockets.some(({ destroyed }) => destroyed)) throw new Error('a slow client was cut off')
    for (const socket of sockets) socket.destroy()
    for (const { stop } of fresh) await stop()
    const of = (way: string) => rows.map((row) => row[everyWay.indexOf(way as Way)] as number)
    goals.push(
      {
        measure: `100 slow clients${over}: the router's memory, MiB`,
        wanted: everywhere(scheme === 'http' ? 200 : 300),
        got: (way) => Math.max(...of(way)),
        atMost: true,
      },
      {
        measure: `the same${over} after two minutes against ten seconds`,
        wanted: everywhere(1.15),
        got: (way) => (of(way)[2] as number) / (of(way)[0] as number),
        atMost: true,
      },
    )
    return stage.table(
      ['through', 'MiB after 10 s', '60 s', '120 s'],
      everyWay.map((way) => [way, ...of(way)]),
    )
  })
}
