/** Finds the system programs that tests, demo and bench need. Installs missing ones with apt-get and says so. */
import { onPath, run } from './children.ts'

/** Installs Debian packages. Gives false if this is not root on Debian or Ubuntu, or if apt-get fails. */
export async function install(packages: string[], say: (line: string) => void): Promise<boolean> {
  if (process.getuid?.() !== 0 || !(await onPath('apt-get'))) return false
  say(`installing with apt-get: ${packages.join(' ')}`)
  // If systemd runs, the docker-registry package would start a service on port 5000. RUNLEVEL=1 prevents that.
  const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  const command = ['apt-get', 'install', '-y', '-q', '--no-install-recommends', ...packages]
  try {
    await run(command, { env }).catch(async () => {
      await run(['apt-get', 'update', '-q'], { env })
      await run(command, { env })
    })
    return true
  } catch (error) {
    say(`apt-get failed: ${(error as Error).message}`)
    return false
  }
}

/** The first of `names` on the PATH. If none is, installs the package `debian`. Gives undefined if that fails. */
export async function program(
  names: string[],
  debian: string,
  say: (line: string) => void,
): Promise<string | undefined> {
  const found = await firstOnPath(names)
  if (found) return found
  return (await install([debian], say)) ? firstOnPath(names) : undefined
}

async function firstOnPath(names: string[]): Promise<string | undefined> {
  for (const name of names) if (await onPath(name)) return name
  return undefined
}
