/** Who may do what here, where this router asks for the login itself (HTPASSWD_FILE). */
import type { Match } from '../routing.ts'
import type { Config } from './config.ts'
import { ociError } from './errors.ts'
import type { Log } from './log.ts'
import { type Check, createPasswords } from './passwords.ts'
import type { Connection } from './runtime.ts'

/** What a request needs: to read what ANONYMOUS_PULL opens, any login, or one that may write. */
export type Right = 'read' | 'login' | 'write'

/** Gives the answer to whoever may not; tells the connection the user. */
export type Access = (request: Request, right: Right, connection: Connection) => Promise<Response | undefined>

export function rightOf(method: string, { route: { entity } }: Match): Right {
  if (!['GET', 'HEAD'].includes(method) || entity === 'upload') return 'write'
  return ['manifest', 'blob', 'tags', 'referrers'].includes(entity) ? 'read' : 'login'
}

/** `onLogin` is told what came of each login: `right`, `wrong` or `busy`. */
export function createAccess(config: Config, now: () => number, log: Log, onLogin: (outcome: Check) => void): Access {
  const { htpasswdFile, anonymousPull, pushUsers, aggregate, tlsCertFile } = config
  if (!htpasswdFile) return async () => undefined
  const check = createPasswords(htpasswdFile, now, log)

  return async (request, right, connection) => {
    const { method, headers } = request
    const refuse = (status: number, code: string, message: string, fields = {}) =>
      ociError(method, status, { code, message }, fields)
    const challenged = (message: string) =>
      refuse(401, 'UNAUTHORIZED', message, { 'WWW-Authenticate': challenge(request) })
    const login = loginOf(headers.get('Authorization'))
    if (login === 'none') return anonymousPull && right === 'read' ? undefined : challenged('a login is required')
    if (login === 'other') return challenged('a login with user and password is required')
    const found = await check(login.user, login.password, connection.address ?? '')
    onLogin(found)
    if (found === 'busy') {
      return refuse(429, 'TOOMANYREQUESTS', 'too many wrong logins from this address', { 'Retry-After': '5' })
    }
    if (found === 'wrong') return challenged('wrong user or password')
    connection.user = login.user
    const mayWrite = pushUsers.length === 0 || pushUsers.includes(login.user)
    return right === 'write' && !mayWrite ? refuse(403, 'DENIED', 'this user may not write') : undefined
  }

  /**
   * Docker reads without a login only where tokens are asked for: to a Basic challenge it has no answer then. A browser
   * answers to Basic alone. Behind TLS no login is to go out in clear, whatever AGGREGATE_HOSTNAME says.
   */
  function challenge({ url, headers }: Request): string {
    if (!anonymousPull || !new URL(url).pathname.startsWith('/v2/')) return `Basic realm="${aggregate.host}"`
    const overTls = tlsCertFile !== '' || headers.get('X-Forwarded-Proto') === 'https'
    const scheme = overTls ? 'https:' : aggregate.protocol
    return `Bearer realm="${scheme}//${aggregate.host}/v2/token",service="${aggregate.host}"`
  }
}

/**
 * The token of whoever may read: the login itself, so that replicas need share nothing (distribution, "Token
 * Authentication Specification").
 */
export function tokenOf({ headers }: Request): string {
  return credentials.exec(headers.get('Authorization') ?? '')?.[1] ?? 'Og=='
}

/** Basic (RFC 7617), or the same as a token. Empty ones are what skopeo sends where it has none. */
const credentials = /^(?:basic|bearer) +([a-z0-9+/]+=*)$/i
function loginOf(authorization: string | null): { user: string; password: string } | 'none' | 'other' {
  if (authorization === null) return 'none'
  const [, encoded] = credentials.exec(authorization) ?? []
  const decoded = encoded && Buffer.from(encoded, 'base64').toString()
  if (!decoded?.includes(':')) return 'other'
  const at = decoded.indexOf(':')
  const [user, password] = [decoded.slice(0, at), decoded.slice(at + 1)]
  return user === '' && password === '' ? 'none' : { user, password }
}
