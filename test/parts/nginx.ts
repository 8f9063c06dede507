/** nginx with a server of ours, all that it writes in a folder of its own; and how any such server is started. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Child, start, until } from './children.ts'
import { send } from './client.ts'

/** Settles when it answers at `url`; `main` and `http` are what its configuration has at the top and in `http`. */
export async function startNginx(folder: string, url: string, main: string, http: string): Promise<Child> {
  const prefix = join(folder, `nginx-${new URL(url).port}`)
  mkdirSync(prefix)
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const file = join(prefix, 'nginx.conf')
  writeFileSync(
    file,
    `${main} daemon off; pid ${prefix}/pid; error_log ${prefix}/error.log;
    events { worker_connections 8192; }
    http {
      ${kinds.map((kind) => `${kind}_temp_path ${prefix}/${kind};`).join(' ')}
      access_log ${prefix}/access.log;
      ${http}
    }`,
  )
  return startServer(['nginx', '-p', prefix, '-c', file], url)
}

/** Settles when it answers at `url`. */
export async function startServer(command: string[], url: string, env?: Record<string, string>): Promise<Child> {
  const child = start(command, { env })
  await until(`${command[0]}`, () => {
    if (child.exited()) throw new Error(child.lines.join('\n'))
    return send(url, 'GET', '/v2/').catch(() => undefined)
  })
  return child
}
