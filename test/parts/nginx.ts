/** Starts nginx, or another server program, and waits until it answers. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Child, start } from './children.ts'
import { send } from './client.ts'
import { until } from './until.ts'

/**
 * Starts nginx with all its files in `folder` and waits until `url` answers. `main` goes to the top level of its
 * configuration, `http` into the `http` block.
 */
export async function startNginx(folder: string, url: string, main: string, http: string): Promise<Child> {
  const prefix = join(folder, `nginx-${new URL(url).port}`)
  mkdirSync(prefix)
  const temporaryKinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const file = join(prefix, 'nginx.conf')
  writeFileSync(
    file,
    `${main} daemon off; pid ${prefix}/pid; error_log ${prefix}/error.log;
    events { worker_connections 8192; }
    http {
      ${temporaryKinds.map((kind) => `${kind}_temp_path ${prefix}/${kind};`).join(' ')}
      access_log ${prefix}/access.log;
      ${http}
    }`,
  )
  return startServer(['nginx', '-p', prefix, '-c', file], url)
}

/** Starts a server and waits until `url` answers. Throws with its output if it ends first, or after 30 s. */
export async function startServer(command: string[], url: string, env?: Record<string, string>): Promise<Child> {
  const child = start(command, { env })
  await until(`${command[0]}`, () => {
    if (child.exited()) throw new Error(child.lines.join('\n'))
    return send(url, 'GET', '/v2/').catch(() => undefined)
  })
  return child
}
