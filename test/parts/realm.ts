/** A realm that gives signed tokens, and the `auth` section of a registry that wants them. */
import { createSign, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './children.ts'
import { program } from './packages.ts'
import { scripted } from './scripted.ts'

export interface Realm {
  host: string
  /** The `auth` section (distribution, "Configuring a registry"). */
  auth: { token: object }
  /** Every token asked for: by whom, with what program, for what. */
  tokens: { authorization?: string; agent?: string; scope: string }[]
  close: () => Promise<void>
}

/** `opens` says whether a login, or none, may have a scope; logins that `knows` does not know get 401. */
export async function startRealm(
  folder: string,
  knows: (authorization: string) => boolean,
  opens: (authorization: string | undefined, scope: string) => boolean,
): Promise<Realm> {
  if (!(await program(['openssl'], 'openssl', console.error))) throw new Error('openssl is missing')
  const [key, certificate] = [join(folder, 'realm.key'), join(folder, 'realm.pem')]
  const made = ['-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate]
  await run(['openssl', 'req', '-x509', ...made, '-subj', '/CN=realm', '-days', '2'])
  const chain = readFileSync(certificate, 'utf8').replace(/-----[^-]+-----|\s/g, '')
  const tokens: Realm['tokens'] = []
  const realm = await scripted((request, response) => {
    // OAuth's way, which containerd tries first: registries without it answer so, and are then asked by GET.
    if (request.method !== 'GET') return response.writeHead(405).end()
    const asked = new URL(request.url ?? '', 'http://realm').searchParams
    const { authorization, 'user-agent': agent } = request.headers
    const scope = asked.getAll('scope').join(' ')
    tokens.push({ authorization, agent, scope })
    if (authorization && !knows(authorization)) return response.writeHead(401).end()
    const access = scope.split(' ').flatMap((one) => {
      const [type, name, actions = ''] = one.split(':')
      return one && opens(authorization, one) ? [{ type, name, actions: actions.split(',') }] : []
    })
    const now = Math.floor(Date.now() / 1000)
    const times = { exp: now + 300, nbf: now - 10, iat: now }
    const claims = { iss: 'realm', sub: 'somebody', aud: asked.get('service'), ...times, jti: randomUUID(), access }
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const signed = `${part({ typ: 'JWT', alg: 'RS256', x5c: [chain] })}.${part(claims)}`
    const signature = createSign('RSA-SHA256').update(signed).sign(readFileSync(key)).toString('base64url')
    const body = JSON.stringify({ token: `${signed}.${signature}`, expires_in: 300 })
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.length }).end(body)
  })
  const { host, close } = realm
  const token = { realm: `http://${host}/token`, service: 'registry', issuer: 'realm', rootcertbundle: certificate }
  return { host, auth: { token }, tokens, close }
}
