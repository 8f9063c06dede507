/** A token server (realm) that signs tokens, with the `auth` section of a registry that requires them. */
import { createSign, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './children.ts'
import { program } from './packages.ts'
import { scripted } from './scripted.ts'

export interface Realm {
  host: string
  /** The `auth` section of the registry's configuration (distribution, "Configuring a registry"). */
  auth: { token: object }
  /** Each token request: its Authorization and User-Agent header fields and its scope. */
  tokens: { authorization?: string; agent?: string; scope: string }[]
  close: () => Promise<void>
}

/**
 * Starts a realm. `isKnown`: whether a login is valid; an invalid one gets 401. `mayAccess`: whether a login, or an
 * anonymous client, gets this scope. Throws if openssl is missing.
 */
export async function startRealm(
  folder: string,
  isKnown: (authorization: string) => boolean,
  mayAccess: (authorization: string | undefined, scope: string) => boolean,
): Promise<Realm> {
  if (!(await program(['openssl'], 'openssl', console.error))) throw new Error('openssl is missing')
  const [key, certificate] = [join(folder, 'realm.key'), join(folder, 'realm.pem')]
  const keyOptions = ['-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate]
  await run(['openssl', 'req', '-x509', ...keyOptions, '-subj', '/CN=realm', '-days', '2'])
  const chain = readFileSync(certificate, 'utf8').replace(/-----[^-]+-----|\s/g, '')
  const tokens: Realm['tokens'] = []
  const realm = await scripted((request, response) => {
    // containerd tries OAuth 2 (a POST) first. A realm without OAuth 2 refuses that, and then gets a GET.
    if (request.method !== 'GET') return response.writeHead(405).end()
    const query = new URL(request.url ?? '', 'http://realm').searchParams
    const { authorization, 'user-agent': agent } = request.headers
    const scope = query.getAll('scope').join(' ')
    tokens.push({ authorization, agent, scope })
    if (authorization && !isKnown(authorization)) return response.writeHead(401).end()
    const access = scope.split(' ').flatMap((resource) => {
      const [type, name, actions = ''] = resource.split(':')
      return resource && mayAccess(authorization, resource) ? [{ type, name, actions: actions.split(',') }] : []
    })
    const now = Math.floor(Date.now() / 1000)
    const times = { exp: now + 300, nbf: now - 10, iat: now }
    const claims = { iss: 'realm', sub: 'somebody', aud: query.get('service'), ...times, jti: randomUUID(), access }
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const signed = `${encode({ typ: 'JWT', alg: 'RS256', x5c: [chain] })}.${encode(claims)}`
    const signature = createSign('RSA-SHA256').update(signed).sign(readFileSync(key)).toString('base64url')
    const body = JSON.stringify({ token: `${signed}.${signature}`, expires_in: 300 })
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.length }).end(body)
  })
  const { host, close } = realm
  const token = { realm: `http://${host}/token`, service: 'registry', issuer: 'realm', rootcertbundle: certificate }
  return { host, auth: { token }, tokens, close }
}
