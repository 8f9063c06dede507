/** Runs the OCI conformance suite, and counts and compares what comes out. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { start } from './children.ts'

/** Each test's name and outcome, in order; a name may occur several times. */
export type Outcomes = [test: string, outcome: string][]
export interface Count {
  passed: number
  failed: number
  skipped: number
}

/** Tests every API and every kind of data, also of the next spec version. */
const fullSuite = { OCI_VERSION: 'dev', OCI_DATA_SPARSE: 'true', OCI_TLS: 'disabled' }
/** The caller's own settings of the suite: they are unset. */
const inherited = Object.keys(process.env).filter((key) => key.startsWith('OCI_'))

/** `results`: the name of a new folder in `folder`. */
export async function runSuite(
  conformance: string,
  { host, folder, results, settings }: { host: string; folder: string; results: string; settings: object },
): Promise<Outcomes> {
  const suiteEnv = { ...fullSuite, ...settings, OCI_REGISTRY: host, OCI_RESULTS_DIR: results }
  const env = { ...Object.fromEntries(inherited.map((key) => [key, undefined])), ...suiteEnv }
  // The exit code is ignored: it is 0 only if every test passes.
  const suite = start([conformance], { cwd: folder, env })
  await suite.ended
  const junit = readFileSync(join(folder, results, 'junit.xml'), 'utf8')
  const tests = junit.matchAll(/<testcase name="OCI Conformance Test\/([^"]+)"[^>]* status="(\w+)"/g)
  const outcomes = [...tests].map(([, test, outcome]) => [test, outcome] as [string, string])
  if (outcomes.length === 0) throw new Error(`the suite ran nothing:\n${suite.lines.join('\n')}`)
  return outcomes
}

export function countBy(tests: Outcomes, keyOf: (test: string) => string): Map<string, Count> {
  const counts = new Map<string, Count>()
  for (const [test, outcome] of tests) {
    const count = counts.get(keyOf(test)) ?? { passed: 0, failed: 0, skipped: 0 }
    count[outcome === 'passed' || outcome === 'skipped' ? outcome : 'failed']++
    counts.set(keyOf(test), count)
  }
  return counts
}

const none: Count = { passed: 0, failed: 0, skipped: 0 }

export const summarize = ({ passed, failed, skipped }: Count = none) =>
  [passed && `${passed} ✓`, failed && `${failed} ✗`, skipped && `${skipped} ○`].filter(Boolean).join(' ') || 'not run'

/** What is worse than directly, compared test by test: in a sum, a better test could hide a worse one. */
export function worseTests(directly: Outcomes, through: Outcomes): string[] {
  const counts = countBy(through, (test) => test)
  return [...countBy(directly, (test) => test)].flatMap(([test, direct]) => {
    const got = counts.get(test) ?? none
    if (got.passed >= direct.passed && got.failed <= direct.failed) return []
    return [`${test}: ${summarize(got)}, directly ${summarize(direct)}`]
  })
}
