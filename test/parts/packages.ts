/** System programs the demo and the tests need: found, or installed with the distribution's package manager, said aloud. */
import { onPath, run } from './children.ts'

/** Installs Debian packages if this is root on Debian or Ubuntu; false where it is not. */
export async function install(packages: string[], say: (line: string) => void): Promise<boolean> {
  if (process.getuid?.() !== 0 || !(await onPath('apt-get'))) return false
  say(`installing with apt-get: ${packages.join(' ')}`)
  // The package of the registry starts a service on port 5000 where systemd runs; nobody here asked for one.
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

/** The first of these programs there is, after installing `debian` if there is none. */
export async function program(
  names: string[],
  debian: string,
  say: (line: string) => void,
): Promise<string | undefined> {
  const found = await first(names)
  if (found) return found
  return (await install([debian], say)) ? first(names) : undefined
}

async function first(names: string[]): Promise<string | undefined> {
  for (const name of names) if (await onPath(name)) return name
  return undefined
}
