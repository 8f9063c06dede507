/** Finds the Docker engine and Compose. Both are optional: if one is missing, a message says what is skipped. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './children.ts'
import { root } from './router.ts'

/** The command for Compose. Gives undefined, and says why, if the image cannot be built or the stack cannot run. */
export async function composeCommand(say: (line: string) => void): Promise<string[] | undefined> {
  const works = (...command: string[]) =>
    run(command).then(
      () => true,
      () => false,
    )
  const missing = (what: string): undefined =>
    say(`NO ${what}: the image is not built, and the compose stack is not run`) as undefined
  if (!(await works('docker', 'version', '--format', '{{.Server.Version}}'))) return missing('DOCKER ENGINE')
  const compose = (await works('docker', 'compose', 'version')) ? ['docker', 'compose'] : ['docker-compose']
  if (!(await works(...compose, 'version'))) return missing('DOCKER COMPOSE')
  const baseImages = readFileSync(join(root, 'Dockerfile'), 'utf8').matchAll(/^FROM (?:--\S+ )?(\S+)/gm)
  for (const [, image = ''] of [...baseImages, ['', 'registry:3']]) {
    const isPresent = await works('docker', 'image', 'inspect', image)
    if (!isPresent && !(await works('docker', 'pull', image))) return missing(`IMAGE ${image} TO BE HAD`)
  }
  return compose
}
