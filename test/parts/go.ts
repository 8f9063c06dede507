/** Builds the Go programs that the tests use, at pinned versions. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { onPath, run } from './children.ts'
import { root } from './router.ts'

/** Paths of the programs. */
export interface GoTools {
  /** The OCI conformance suite. */
  conformance: string
  /** A registry with the referrers API. */
  olareg: string
}

/** The folder whose go.mod pins the versions. */
const cwd = join(root, 'test/conformance')

/**
 * Builds the tools. Gives undefined, and says why, if Go is missing or too old or the modules cannot be downloaded.
 * Rejects on any other failure, such as a wrong checksum.
 */
export async function goTools(say: (line: string) => void): Promise<GoTools | undefined> {
  const unavailable = (reason: string): undefined => say(`THE CONFORMANCE SUITE IS NOT RUN: ${reason}`) as undefined
  if (!(await onPath('go'))) return unavailable('there is no `go` on the PATH')
  const version = await run(['go', 'version'], { cwd: root })
  // `go tool` reads tools from go.mod since Go 1.24.
  if (Number(/go1\.(\d+)/.exec(version)?.[1]) < 24) return unavailable(`${version} is older than 1.24`)
  const pathOf = async (tool: string) => (await run(['go', 'tool', '-n', tool], { cwd })).split('\n').at(-1) as string
  try {
    return { conformance: await pathOf('conformance'), olareg: await pathOf('olareg') }
  } catch (error) {
    const downloadError = await run(['go', 'mod', 'download'], { cwd }).then(
      () => undefined,
      ({ message }: Error) => message,
    )
    if (!downloadError || downloadError.includes('checksum mismatch')) throw error
    return unavailable(`its Go modules cannot be got: ${downloadError.split('\n').at(-1)}`)
  }
}

/** CNCF distribution, in a later version than Debian has. */
const distribution = 'github.com/distribution/distribution/v3/cmd/registry@v3.1.2'

/** Builds CNCF distribution 3 into `folder`, and gives its path. Gives undefined, and says why, if that is not possible. */
export async function distribution3(folder: string, say: (line: string) => void): Promise<string | undefined> {
  const reason = await goInstall(distribution, folder)
  if (reason === undefined) return join(folder, 'registry')
  say(`CNCF DISTRIBUTION 3 IS NOT RUN: ${reason}`)
  return undefined
}

/** Builds `path/of/a/program@version` into `folder`. Gives the reason if it fails, undefined if it succeeds. */
export async function goInstall(program: string, folder: string): Promise<string | undefined> {
  if (!(await onPath('go'))) return 'there is no `go` on the PATH'
  return run(['go', 'install', program], { cwd: folder, env: { GOBIN: folder, GOFLAGS: '-p=1 -buildvcs=false' } }).then(
    () => undefined,
    ({ message }: Error) => message.split('\n').at(-1),
  )
}

/** What `goInstall` builds crane from, which also serves a registry. */
export const cranePackage = 'github.com/google/go-containerregistry/cmd/crane@v0.22.1'
/** What `goInstall` builds helm from. */
export const helmPackage = 'helm.sh/helm/v3/cmd/helm@v3.22.0'

/** The helm on the PATH, or one that is built into `folder`. Gives undefined, and says why, if there is none. */
export async function findHelm(folder: string, say: (line: string) => void): Promise<string | undefined> {
  if (await onPath('helm')) return 'helm'
  say(`building with go install: ${helmPackage}`)
  const fault = await goInstall(helmPackage, folder)
  if (!fault) return join(folder, 'helm')
  say(`THE CHART IS NOT RENDERED: ${fault}`)
  return undefined
}

/** The version of a module in go.mod; empty if it has none. */
export function pinned(module: string): string {
  return readFileSync(join(cwd, 'go.mod'), 'utf8').match(`${module} (v\\S+)`)?.[1] ?? ''
}
