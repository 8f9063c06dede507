/** Who may do what here, if this router asks for the login itself (HTPASSWD_FILE). */
import type { Match } from '../../routing.ts'
import type { Log } from '../log.ts'
import { ociError } from '../registry/errors.ts'
import { isRead } from '../runtime/runtime.ts'
import { type Check, Passwords } from './passwords.ts'

/**
 * What a request needs. `read` and `public` may be open to all (ANONYMOUS_PULL); `public` is a read that only public registries
 * are asked. The rest needs a login, or one that may write.
 */
export type Right = 'public' | 'read' | 'login' | 'write'

export interface AccessSettings {
  /** Empty: no login is asked for here. */
  htpasswdFile: string
  anonymousPull: 'false' | 'true' | 'public'
  /** Empty: all may write. */
  pushUsers: readonly string[]
  /** This router's public address. */
  aggregate: Pick<URL, 'host' | 'protocol'>
  tlsCertFile: string
}

/** Who logged in, or the answer to a client that may not do this. */
export interface Admitted {
  user?: string
  refusal?: Response
}

/** By ANONYMOUS_PULL: what needs no login. */
const openTo: Record<AccessSettings['anonymousPull'], readonly Right[]> = {
  false: [],
  true: ['read', 'public'],
  public: ['public'],
}

/** Decides on a request that came from `address`. */
export type Access = (request: Request, right: Right, address?: string) => Promise<Admitted>

/** `isPublic`: whether only public registries are asked. */
export function rightOf(method: string, { route: { entity } }: Match, isPublic: boolean): Right {
  if (!isRead({ method }) || entity === 'upload') return 'write'
  if (!['manifest', 'blob', 'tags', 'referrers'].includes(entity)) return 'login'
  return isPublic ? 'public' : 'read'
}

/** `onLogin` is called with what came of each login. */
export function createAccess(
  settings: AccessSettings,
  now: () => number,
  log: Log,
  onLogin: (outcome: Check) => void,
): Access {
  const { htpasswdFile, anonymousPull, pushUsers } = settings
  if (!htpasswdFile) return async () => ({})
  const passwords = new Passwords(htpasswdFile, now, log)

  return async (request, right, address = '') => {
    const { method } = request
    const challenged = (message: string): Admitted => {
      const fields = { 'WWW-Authenticate': challengeFor(request, settings) }
      return { refusal: ociError(method, 401, { code: 'UNAUTHORIZED', message }, fields) }
    }
    const login = loginOf(request.headers.get('Authorization'))
    if (login === 'none') return openTo[anonymousPull].includes(right) ? {} : challenged('a login is required')
    if (login === 'other') return challenged('a login with user and password is required')
    const { user } = login
    const outcome = await passwords.check(user, login.password, address)
    onLogin(outcome)
    if (outcome === 'busy') {
      const error = {
        code: 'TOOMANYREQUESTS',
        message: 'too many logins wait to be checked: try again in a few seconds',
      }
      return { refusal: ociError(method, 429, error, { 'Retry-After': '5' }) }
    }
    if (outcome === 'wrong') return challenged('wrong user or password')
    if (right === 'write' && pushUsers.length > 0 && !pushUsers.includes(user))
      return { user, refusal: ociError(method, 403, { code: 'DENIED', message: 'this user may only pull' }) }
    return { user }
  }
}

/**
 * - If reading needs no login, the challenge of the API is Bearer: docker reads without a login only if tokens are asked for.
 * - Else it is Basic, the only one that a browser answers.
 *
 * Behind TLS no login may go out in clear, whatever AGGREGATE_HOSTNAME says.
 */
function challengeFor({ url, headers }: Request, { aggregate, anonymousPull, tlsCertFile }: AccessSettings): string {
  if (anonymousPull === 'false' || !new URL(url).pathname.startsWith('/v2/')) return `Basic realm="${aggregate.host}"`
  const isTls = tlsCertFile !== '' || headers.get('X-Forwarded-Proto') === 'https'
  const scheme = isTls ? 'https:' : aggregate.protocol
  return `Bearer realm="${scheme}//${aggregate.host}/v2/token",service="${aggregate.host}"`
}

/**
 * The token for a client that may read. It is the login itself, so replicas share nothing (distribution, "Token Authentication
 * Specification").
 */
export function tokenOf({ headers }: Request): string {
  return credentials.exec(headers.get('Authorization') ?? '')?.[1] ?? 'Og=='
}

/** Basic (RFC 7617), or a token that holds the same. */
const credentials = /^(?:basic|bearer) +([a-z0-9+/]+=*)$/i

function loginOf(authorization: string | null): { user: string; password: string } | 'none' | 'other' {
  if (authorization === null) return 'none'
  const [, encoded] = credentials.exec(authorization) ?? []
  const decoded = encoded && Buffer.from(encoded, 'base64').toString()
  if (!decoded?.includes(':')) return 'other'
  const at = decoded.indexOf(':')
  const [user, password] = [decoded.slice(0, at), decoded.slice(at + 1)]
  // Skopeo sends an empty user and password if it has none.
  return user === '' && password === '' ? 'none' : { user, password }
}
