/** Programs that Go builds, or has in its build cache, at pinned versions. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { onPath, run } from './children.ts'
import { root } from './router.ts'

export interface GoTools {
  /** The OCI conformance suite. */
  conformance: string
  /** A registry with the referrers API. */
  olareg: string
}

/** Its go.mod has the versions of these. */
const cwd = join(root, 'test/conformance')

/** Undefined, said aloud, where Go or these modules are not to be had; whatever else goes wrong rejects. */
export async function goTools(say: (line: string) => void): Promise<GoTools | undefined> {
  const lacking = (reason: string): undefined => say(`THE CONFORMANCE SUITE IS NOT RUN: ${reason}`) as undefined
  if (!(await onPath('go'))) return lacking('there is no `go` on the PATH')
  const version = await run(['go', 'version'], { cwd: root })
  // A go.mod has tools from then on.
  if (Number(/go1\.(\d+)/.exec(version)?.[1]) < 24) return lacking(`${version} is older than 1.24`)
  const pathOf = async (tool: string) => (await run(['go', 'tool', '-n', tool], { cwd })).split('\n').at(-1) as string
  try {
    return { conformance: await pathOf('conformance'), olareg: await pathOf('olareg') }
  } catch (error) {
    const download = await run(['go', 'mod', 'download'], { cwd }).then(
      () => undefined,
      ({ message }: Error) => message,
    )
    if (!download || download.includes('checksum mismatch')) throw error
    return lacking(`its Go modules cannot be got: ${download.split('\n').at(-1)}`)
  }
}

/** Builds `path/of/a/program@version` into `folder`, its sum checked by Go; gives why where that cannot be. */
export async function goInstall(program: string, folder: string): Promise<string | undefined> {
  if (!(await onPath('go'))) return 'there is no `go` on the PATH'
  return run(['go', 'install', program], { cwd: folder, env: { GOBIN: folder } }).then(
    () => undefined,
    ({ message }: Error) => message.split('\n').at(-1),
  )
}

/** The version that one of these modules is pinned to. */
export function pinned(module: string): string {
  return readFileSync(join(cwd, 'go.mod'), 'utf8').match(`${module} (v\\S+)`)?.[1] ?? ''
}
