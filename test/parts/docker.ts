/** The Docker engine, where one answers. No test may expect one: who lacks it is told so. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './children.ts'
import { root } from './router.ts'

/** How to call compose; undefined, said aloud, where the image cannot be built, or the stack not be run. */
export async function composeCommand(say: (line: string) => void): Promise<string[] | undefined> {
  const works = (...command: string[]) =>
    run(command).then(
      () => true,
      () => false,
    )
  const lacking = (what: string): undefined =>
    say(`NO ${what}: the image is not built, and the compose stack is not run`) as undefined
  if (!(await works('docker', 'version', '--format', '{{.Server.Version}}'))) return lacking('DOCKER ENGINE')
  const found = (await works('docker', 'compose', 'version')) ? ['docker', 'compose'] : ['docker-compose']
  if (!(await works(...found, 'version'))) return lacking('DOCKER COMPOSE')
  const named = readFileSync(join(root, 'Dockerfile'), 'utf8').matchAll(/^FROM (?:--\S+ )?(\S+)/gm)
  for (const [, image = ''] of [...named, ['', 'registry:3']]) {
    const had = await works('docker', 'image', 'inspect', image)
    if (!had && !(await works('docker', 'pull', image))) return lacking(`IMAGE ${image} TO BE HAD`)
  }
  return found
}
