/**
 * `npm run conformance`: the OCI conformance suite on two kinds of hosted registry, each asked directly and through the
 * router on each way to run it, which goes into the file it is told; told none, each way meets one of the two. Exit code 1
 * where a test is worse through the router.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import manifest from '../package.json' with { type: 'json' }
import { start, temporaryFolder } from './parts/children.ts'
import { goTools, pinned } from './parts/go.ts'
import { findRegistry, fromOlareg, type Launch } from './parts/registries.ts'
import { startRouter, type Way, ways } from './parts/router.ts'

type Target = 'direct' | Way
interface Kind {
  name: string
  launch: Launch
  /** Settings of the suite for this kind alone. */
  settings: Record<string, string>
  /** Who meets it where each way meets one kind. */
  half: Way[]
}
interface Count {
  passed: number
  failed: number
  skipped: number
}

const tools = await goTools(console.log)
if (!tools) process.exit(1)
const { conformance, olareg } = tools
let program = ''
const launch = await findRegistry((line) => {
  program = line
  console.log(line)
})
const kinds: Kind[] = [
  { name: 'distribution', launch, settings: {}, half: ['node', 'binary'] },
  {
    name: 'olareg',
    launch: fromOlareg(olareg),
    // It never sends the field, which the spec wants from its next version on: the rest would not be looked at.
    settings: { OCI_API_BLOBS_DIGEST_HEADER: 'false', OCI_API_MANIFESTS_DIGEST_HEADER: 'false' },
    half: ['bun', 'deno'],
  },
]
const [file] = process.argv.slice(2)
const targetsOf = ({ half }: Kind): Target[] => ['direct', ...(file ? (Object.keys(ways) as Way[]) : half)]
/** Every API and every kind of data, those of the next version too. */
const everything = { OCI_VERSION: 'dev', OCI_DATA_SPARSE: 'true', OCI_TLS: 'disabled' }
const suiteModule = 'github.com/opencontainers/distribution-spec/conformance'
const olaregModule = 'github.com/olareg/olareg'
const callers = Object.keys(process.env).filter((key) => key.startsWith('OCI_'))
const folder = temporaryFolder()
const runtimes = new Set<unknown>()
const worse: string[] = []

/** The suite on registries of its own: how each test came out, in the suite's order; a name may come several times. */
async function perform({ name, launch: launchHosted, settings }: Kind, target: Target): Promise<[string, string][]> {
  const called = (part: string) => ({ name: `${name}-${target}-${part}`, folder })
  const hosted = await launchHosted(called('hosted'))
  const parts: { stop: () => Promise<unknown> }[] = [hosted]
  let host = hosted.host
  let odd = (): unknown[] => []
  if (target !== 'direct') {
    const hub = await launch(called('hub'))
    const cache = await launch({ ...called('cache'), proxyOf: hub.url })
    const router = await startRouter(target, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host })
    parts.unshift(router, cache, hub)
    ;({ host, odd } = router)
    runtimes.add(router.log().find(({ message }) => message === 'listening')?.runtime)
  }
  const { name: results } = called('results')
  const set = { ...everything, ...settings, OCI_REGISTRY: host, OCI_RESULTS_DIR: results }
  const env = { ...Object.fromEntries(callers.map((key) => [key, undefined])), ...set }
  // Its exit code says whether the registry is perfect.
  const suite = start([conformance], { cwd: folder, env })
  await suite.ended
  for (const part of parts) await part.stop()
  for (const line of odd()) worse.push(`${name}, ${target}: the router logged ${JSON.stringify(line)}`)
  const junit = readFileSync(join(folder, results, 'junit.xml'), 'utf8')
  const tests = junit.matchAll(/<testcase name="OCI Conformance Test\/([^"]+)"[^>]* status="(\w+)"/g)
  const outcomes = [...tests].map(([, test, outcome]) => [test, outcome] as [string, string])
  if (outcomes.length === 0) throw new Error(`the suite ran nothing:\n${suite.lines.join('\n')}`)
  return outcomes
}

function countBy(tests: [string, string][], keyOf: (test: string) => string): Map<string, Count> {
  const counts = new Map<string, Count>()
  for (const [test, outcome] of tests) {
    const count = counts.get(keyOf(test)) ?? { passed: 0, failed: 0, skipped: 0 }
    count[outcome === 'passed' || outcome === 'skipped' ? outcome : 'failed']++
    counts.set(keyOf(test), count)
  }
  return counts
}

const none: Count = { passed: 0, failed: 0, skipped: 0 }
const told = ({ passed, failed, skipped }: Count = none) =>
  [passed && `${passed} ✓`, failed && `${failed} ✗`, skipped && `${skipped} ○`].filter(Boolean).join(' ') || 'not run'

/** The table of one kind; every test that is worse through the router is noted. */
async function compare(kind: Kind): Promise<string> {
  const columns: [string, string][][] = []
  const targets = targetsOf(kind)
  for (const target of targets) {
    const started = performance.now()
    const tests = await perform(kind, target)
    columns.push(tests)
    const seconds = Math.round((performance.now() - started) / 1000)
    console.log(`${kind.name}, ${target}: ${told(countBy(tests, () => '').get(''))} (${seconds} s)`)
    // Each for itself: in a row of the table a better one could hide a worse one.
    const through = countBy(tests, (test) => test)
    for (const [test, direct] of countBy(columns[0] as [string, string][], (test) => test)) {
      const got = through.get(test) ?? none
      if (got.passed >= direct.passed && got.failed <= direct.failed) continue
      worse.push(`${kind.name}, ${target}, ${test}: ${told(got)}, directly ${told(direct)}`)
    }
  }
  const rowOf = (test: string) => test.split('/').slice(0, 2).join('/')
  const rows = [() => 'all', rowOf].flatMap((keyOf) => {
    const counts = columns.map((tests) => countBy(tests, keyOf))
    const names = new Set(counts.flatMap((count) => [...count.keys()]))
    return [...names].map((name) => [name, ...counts.map((count) => told(count.get(name)))])
  })
  return [['test', ...targets], targets.map(() => '---').concat('---'), ...rows]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}

const tables = await Promise.all(kinds.map(compare))
for (const line of worse) console.log(`WORSE: ${line}`)
if (file) {
  const versions = [...runtimes].join(', ')
  const found = worse.length === 0 ? 'nothing that is' : `what is listed under "Worse"`
  const worseList = worse.length === 0 ? '' : `\n## Worse\n\n${worse.map((line) => `- ${line}`).join('\n')}\n`
  writeFileSync(
    file,
    `# Conformance

The official OCI conformance suite, all of it, finds ${found} worse through this router than at the hosted registry
asked directly. \`npm run conformance\` runs it, writes this file, and fails where anything is worse.

It takes a minute and wants Go 1.24 or later on the PATH, which gets and builds the suite. The registry program is found
or installed as for \`npm test\`, in which each way to run meets one of the two. Written on ${new Date().toISOString().slice(0, 10)} with

| | |
| --- | --- |
| the suite | \`${suiteModule}\` ${pinned(suiteModule)}, every API and every kind of data on |
| distribution | ${program} |
| olareg, which has the referrers API | \`${olaregModule}\` ${pinned(olaregModule)}; digests in header fields, which it seldom sends, are optional there |
| the router | ${manifest.version} on ${versions} and as the binary; all defaults, so with its memory; its proxy is a cache of an empty registry |

Each column is a run on new registries. A row is all tests of one step: ✓ passed, ✗ failed, ○ skipped, which is what the
suite does with what a registry does not offer. Compared is each test for itself.
${worseList}
${kinds.map(({ name }, i) => `## Hosted: ${name}\n\n${tables[i]}\n`).join('\n')}`,
  )
  console.log(`written: ${file}`)
}
process.exit(worse.length > 0 ? 1 : 0)
