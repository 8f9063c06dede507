/**
 * `npm run rotation -- SECONDS [node|bun|deno|binary]`: pulls, and pushes of layers, while the router's own password at hosted is a new
 * one every 5 s, and each is good for 10 s more.
 *
 * It is not part of `npm test`. The exit code is 1 if a request failed: none is tried again. INTERVAL is CREDENTIALS_INTERVAL, 5 if it is
 * missing. With 600 the router learns from the first password that hosted refuses: a layer that streams just then fails.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { hashSync } from 'bcryptjs'
import { temporaryFolder } from './parts/children.ts'
import { findRegistry } from './parts/registries.ts'
import { startRotating, underLoad } from './parts/rotation.ts'
import { startRouter, type Way } from './parts/router.ts'
import { answer, scripted } from './parts/scripted.ts'

const seconds = Number(process.argv[2] ?? 300)
const way = (process.argv[3] ?? 'node') as Way
const interval = process.env.INTERVAL ?? '5'
const folder = temporaryFolder()
const users = join(folder, 'users')
writeFileSync(users, `ann:${hashSync('right', 4)}\n`)
const hosted = await startRotating(await findRegistry(console.log), folder, { everyMs: 5000, goodMs: 10_000 })
const proxy = await scripted(answer(404))
const router = await startRouter(way, {
  HOSTED_HOSTNAME: hosted.registry.host,
  PROXY_HOSTNAME: proxy.host,
  HOSTED_NAMES: 'team/**',
  HTPASSWD_FILE: users,
  HOSTED_CREDENTIALS_COMMAND: hosted.command,
  CREDENTIALS_INTERVAL: interval,
})
const authorization = `Basic ${Buffer.from('ann:right').toString('base64')}`
const figures = await underLoad({ url: router.url, authorization, seconds, pullsPerSecond: 50, layerMiB: 64 })
const odd = router.odd()
const report = {
  way,
  seconds,
  interval,
  passwords: hosted.passwords(),
  asked: hosted.calls(),
  ...figures,
  failed: figures.failures.length,
  failures: figures.failures.slice(0, 20),
  peakMiB: router.peakMemory(),
  odd,
}
console.log(JSON.stringify(report, null, 2))
for (const part of [router, hosted, proxy]) await ('stop' in part ? part.stop() : part.close())
process.exit(figures.failures.length + odd.length > 0 ? 1 : 0)
