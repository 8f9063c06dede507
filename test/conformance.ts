/**
 * `npm run conformance`: runs the OCI conformance suite on two kinds of hosted registry, directly and through the
 * router.
 *
 * With a file as argument, every way to run the router is tested with both kinds and the result is written to the file.
 * Without one, each way is tested with one kind. The exit code is 1 if a test is worse through the router.
 */
import { writeFileSync } from 'node:fs'
import manifest from '../package.json' with { type: 'json' }
import { temporaryFolder } from './parts/children.ts'
import { goTools, pinned } from './parts/go.ts'
import { findRegistry, fromOlareg, type Launch } from './parts/registries.ts'
import { startRouter, type Way, ways } from './parts/router.ts'
import { countBy, type Outcomes, runSuite, summarize, worseTests } from './parts/suite.ts'

/** What the suite asks: the registry itself, or the router in front of it. */
type Target = 'direct' | Way
interface Kind {
  name: string
  launch: Launch
  /** Settings of the suite for only this kind. */
  settings: Record<string, string>
  /** The ways tested with this kind if each way is tested with one kind. */
  ways: Way[]
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
  { name: 'distribution', launch, settings: {}, ways: ['node', 'binary'] },
  {
    name: 'olareg',
    launch: fromOlareg(olareg),
    // olareg never sends Docker-Content-Digest, which only the next spec version requires. Without these settings the
    // suite would skip the remaining checks.
    settings: { OCI_API_BLOBS_DIGEST_HEADER: 'false', OCI_API_MANIFESTS_DIGEST_HEADER: 'false' },
    ways: ['bun', 'deno'],
  },
]
const [file] = process.argv.slice(2)
const targetsOf = (kind: Kind): Target[] => ['direct', ...(file ? (Object.keys(ways) as Way[]) : kind.ways)]
const suiteModule = 'github.com/opencontainers/distribution-spec/conformance'
const olaregModule = 'github.com/olareg/olareg'
const folder = temporaryFolder()
const runtimes = new Set<unknown>()
const worse: string[] = []

/** Runs the suite on new registries. */
async function perform({ name, launch: launchHosted, settings }: Kind, target: Target): Promise<Outcomes> {
  const partOptions = (part: string) => ({ name: `${name}-${target}-${part}`, folder })
  const hosted = await launchHosted(partOptions('hosted'))
  const parts: { stop: () => Promise<unknown> }[] = [hosted]
  let host = hosted.host
  let odd = (): unknown[] => []
  if (target !== 'direct') {
    const hub = await launch(partOptions('hub'))
    const cache = await launch({ ...partOptions('cache'), proxyOf: hub.url })
    const router = await startRouter(target, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host })
    parts.unshift(router, cache, hub)
    ;({ host, odd } = router)
    runtimes.add(router.log().find(({ message }) => message === 'listening')?.runtime)
  }
  const { name: results } = partOptions('results')
  const outcomes = await runSuite(conformance, { host, folder, results, settings })
  for (const part of parts) await part.stop()
  for (const line of odd()) worse.push(`${name}, ${target}: the router logged ${JSON.stringify(line)}`)
  return outcomes
}

/** Runs the suite on all targets of one kind. Gives the table. Adds each test that is worse than direct to `worse`. */
async function compare(kind: Kind): Promise<string> {
  const columns: Outcomes[] = []
  const targets = targetsOf(kind)
  for (const target of targets) {
    const started = performance.now()
    const tests = await perform(kind, target)
    columns.push(tests)
    const seconds = Math.round((performance.now() - started) / 1000)
    console.log(`${kind.name}, ${target}: ${summarize(countBy(tests, () => '').get(''))} (${seconds} s)`)
    for (const line of worseTests(columns[0] as Outcomes, tests)) worse.push(`${kind.name}, ${target}, ${line}`)
  }
  const rowOf = (test: string) => test.split('/').slice(0, 2).join('/')
  const rows = [() => 'all', rowOf].flatMap((keyOf) => {
    const counts = columns.map((tests) => countBy(tests, keyOf))
    const names = new Set(counts.flatMap((count) => [...count.keys()]))
    return [...names].map((name) => [name, ...counts.map((count) => summarize(count.get(name)))])
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
