/** `npm test`: format, lint and types, then the unit tests on three runtimes and the other tests on the four ways. */
import { browsers } from './parts/browser.ts'
import { run, start, temporaryFolder } from './parts/children.ts'
import { composeCommand } from './parts/docker.ts'
import { distribution3, goTools } from './parts/go.ts'
import { program } from './parts/packages.ts'
import { findRegistry } from './parts/registries.ts'
import { root, ways } from './parts/router.ts'

interface Count {
  passed: number
  failed: number
  skipped: number
}

const bin = (name: string) => `node_modules/.bin/${name}`
const nodeTest = 'timeout 900 node --import tsx --test-reporter=spec'.split(' ')
// A failed test may leave something running: --test-force-exit ends the process anyway. It is not used with --test,
// which reads the results of child processes: the last ones would be lost (nodejs/node#64833).
const oneFile = [...nodeTest, '--test-force-exit']
const units = [
  './routing.test.ts',
  './test/property.test.ts',
  './test/breaker.test.ts',
  './test/registry.test.ts',
  './test/rules.test.ts',
  './test/report.test.ts',
  './test/model.test.ts',
  './test/owners.test.ts',
  './test/authfile.test.ts',
  './test/sessions.test.ts',
  './test/paths.test.ts',
  './test/passwords.test.ts',
  './test/linear.test.ts',
  './test/room.test.ts',
  './test/addresses.test.ts',
  './test/config.test.ts',
  './test/findings.test.ts',
  './test/service.test.ts',
  './test/deploy.test.ts',
  './test/house.test.ts',
  './test/plain.test.ts',
]

/** The lines in which Node, Bun and Deno print their test counts. */
const counts: Record<keyof Count, RegExp> = {
  passed: /^(?:ℹ pass (\d+)| *(\d+) pass$|.*\| (\d+) passed)/,
  failed: /^(?:ℹ fail (\d+)| *(\d+) fail$|.*\| (\d+) failed)/,
  skipped: /^(?:ℹ skipped (\d+)| *(\d+) skip$|.*\| (\d+) ignored)/,
}

type Print = (line: string) => void
type Suite = [name: string, perform: (print: Print) => Promise<Count>]

/** A command that counts as one test: exit code 0 is a pass. */
const check = (command: string[]) => async (print: Print) => {
  const code = await start(command, { cwd: root, onLine: print }).ended
  return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 }
}

/** A command that runs tests and prints the counts. */
const suite =
  (command: string[], env: Record<string, string> = {}) =>
  async (print: Print) => {
    const count = { passed: 0, failed: 0, skipped: 0 }
    const child = start(command, {
      cwd: root,
      env: { NO_COLOR: '1', ...env },
      onLine: (line) => {
        print(line)
        for (const key of Object.keys(counts) as (keyof Count)[]) {
          const found = counts[key].exec(line)?.slice(1).find(Boolean)
          if (found) count[key] = Number(found)
        }
      },
    })
    const code = await child.ended
    // A runner that crashes or runs no test has failed.
    if ((code !== 0 || count.passed === 0) && count.failed === 0) count.failed = 1
    return count
  }

/** One test file on one way to run the router. */
const tests = (file: string, WAY: string, env: Record<string, string> = {}): Suite => {
  const name = `${file.replace('e2e', 'end to end')}, ${WAY}${env === withoutMemory ? ', no memory' : env === packaged ? ' package' : ''}`
  return [name, suite([...oneFile, `./test/${file}.test.ts`], { WAY, ...env })]
}
/** Memory must not change a response, so two files also run without it. One way is enough: all share that code. */
const withoutMemory = { LOOKUP_TTL: '0', MANIFEST_MEMORY: '0', BIG_MIB: '16' }

/** These run first, in order: the other suites need their output. */
const prerequisites: Suite[] = [
  ['format and lint', check([bin('biome'), 'ci', '.'])],
  ['types', check([bin('tsc')])],
  ['binary builds', check(['npm', 'run', '--silent', 'build:binary'])],
  ['npm package builds', check(['npm', 'run', '--silent', 'build:package'])],
]
/** On Node most files run the npm package, which starts faster than the sources. */
const packaged = { NODE_RUNS: 'package' }
/** These files test `npm start` itself, so they run the sources. */
const fromSource = new Set(['e2e', 'kills'])
/** The longest first, because several run at a time. */
const files =
  'e2e tls mount answers layers check tags forward credentials private dialects public several stranger referrers memory page names explain broken process hostile login scale kills'.split(
    ' ',
  )
const onWay = (file: string, way: string) => tests(file, way, way === 'node' && !fromSource.has(file) ? packaged : {})
const suites: Suite[] = [
  ...Object.keys(ways).map((way) => tests('faults', way)),
  tests('faults', 'binary', withoutMemory),
  tests('e2e', 'binary', withoutMemory),
  ...Object.keys(ways).flatMap((way) => files.map((file) => onWay(file, way))),
  ['what is shipped', suite([...oneFile, './test/ship.test.ts'])],
  ['helm chart', suite([...oneFile, './test/chart.test.ts'])],
  tests('front', 'node'),
  ['demo', suite([...oneFile, './test/demo.test.ts'])],
  ['unit, node', suite([...nodeTest, '--test', ...units])],
  ['unit, bun', suite([bin('bun'), 'test', '--timeout=60000', ...units])],
  ['unit, deno', suite([bin('deno'), 'test', '-A', '--no-check', ...units])],
]
/** These run last, and fewer at a time: they tell how long others wait, which a busy machine would decide. */
const timed: Suite[] = ['crowd', 'greedy', 'access'].flatMap((file) => Object.keys(ways).map((way) => onWay(file, way)))
const atOnce = { suites: 4, timed: 2 }

// First, so that a missing program is reported at once.
const print: Print = (line) => console.log(line)
await findRegistry(print)
if (!(await program(['skopeo'], 'skopeo', print))) print('SKOPEO IS MISSING: its tests are skipped')
if (!(await program(['nginx'], 'nginx', print))) print('NGINX IS MISSING: its tests are skipped')
if (!(await program(browsers, 'chromium', print))) print('CHROMIUM IS MISSING: its test is skipped')
// Go and Docker are optional. On any other failure of Go the suite is added, and reports the failure itself.
if (await goTools(print).catch(() => true)) {
  suites.unshift(['conformance', check(['node', '--import', 'tsx', 'test/conformance.ts'])])
}
// Built beside the other suites; those that need it come late.
const registry3 = distribution3(temporaryFolder(), print)
const withRegistry3 = async (way: string, print: Print): Promise<Count> => {
  const REGISTRY3 = await registry3
  if (!REGISTRY3) return { passed: 0, failed: 0, skipped: 0 }
  const [, perform] = tests('distribution', way, { REGISTRY3, ...(way === 'node' ? packaged : {}) })
  return perform(print)
}
for (const way of Object.keys(ways)) suites.push([`distribution, ${way}`, (print) => withRegistry3(way, print)])
if (await composeCommand(print)) {
  suites.unshift(['image and compose stack', suite([...oneFile, './test/image.test.ts'])])
}
await run(['node', '--version'], { onLine: (line) => print(`node ${line}`) })

const results: [string, Count][] = []
/** The last lines of each failed suite, with the reasons. They are printed again at the end. */
const failures: string[] = []
const lastLines = 80
/** Takes suites from the list and runs them one after the other. Prints each suite's output when it ends. */
async function performAll(list: Suite[]): Promise<void> {
  for (let next = list.shift(); next; next = list.shift()) {
    const [name, perform] = next
    const lines: string[] = []
    const started = performance.now()
    const count = await perform((line) => lines.push(line)).catch((error: Error): Count => {
      lines.push(error.message)
      return { passed: 0, failed: 1, skipped: 0 }
    })
    const took = `=== ${name}: ${Math.round((performance.now() - started) / 1000)} s`
    for (const line of [`\n=== ${name}`, ...lines, took]) print(line)
    if (count.failed > 0) failures.push(`\n=== failed: ${name}`, ...lines.slice(-lastLines))
    results.push([name, count])
  }
}
await performAll(prerequisites)
for (const [list, workers] of [
  [suites, atOnce.suites],
  [timed, atOnce.timed],
] as const) {
  await Promise.all(Array.from({ length: workers }, () => performAll(list)))
}

for (const line of failures) print(line)
print(`\n${'suite'.padEnd(32)}passed  failed  skipped`)
for (const [name, { passed, failed, skipped }] of results) {
  print(`${name.padEnd(32)}${`${passed}`.padStart(6)}${`${failed}`.padStart(8)}${`${skipped}`.padStart(9)}`)
}
const sum = (key: keyof Count) => results.reduce((total, [, count]) => total + count[key], 0)
const skippedInCi = process.env.CI === 'true' && sum('skipped') > 0
if (skippedInCi) print('a skipped test fails where CI=true')
print(`\n${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped`)
process.exit(sum('failed') > 0 || skippedInCi ? 1 : 0)
