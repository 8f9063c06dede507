/** `/v2/token`: the realm that hosted names, relayed, so that hosted needs no address that clients reach. */
import type { Log } from '../log.ts'
import { type Client, pingQuestion, type Registry } from '../registry/answer.ts'
import { ociError, readBytes } from '../registry/errors.ts'
import { bearerRealmIn } from '../registry/relayed.ts'
import { respond } from '../runtime/body.ts'
import { messages } from './messages.ts'

const maxTokenBytes = 1024 * 1024
/** The fields of a realm's answer that matter to a client. */
const passed = ['content-type', 'www-authenticate', 'retry-after']

/** The realm's answer (distribution, "Token Authentication Specification"); undefined if hosted names no realm of its own. */
export async function relayToken(hosted: Registry, request: Request, client: Client): Promise<Response | undefined> {
  const { method } = request
  try {
    const reply = await hosted.askRealm(request, client)
    if (!reply) return undefined
    const body = await readBytes(reply, maxTokenBytes)
    if (!body) throw new Error('too long')
    const headers = new Headers({ 'Cache-Control': 'no-store' })
    for (const name of passed) {
      const value = reply.headers.get(name)
      if (value) headers.set(name, value)
    }
    return respond(body, { status: reply.status, headers })
  } catch (error) {
    if (error instanceof RangeError) return ociError(method, 413, { code: 'UNSUPPORTED', message: error.message })
    return ociError(method, 502, { code: 'UNAVAILABLE', message: messages.noToken })
  }
}

/** Warns if clients must ask a realm themselves, which knows the names only with the path of hosted's address. Never rejects. */
export async function warnOfRealm(
  hosted: Registry,
  { hosted: address, aggregate, passLogin }: { hosted: URL; aggregate: URL; passLogin: boolean },
  log: Log,
): Promise<void> {
  if (!passLogin || address.pathname === '/') return
  const headers = { 'accept-encoding': 'identity' }
  const answer = await hosted.ask({ ...pingQuestion, headers, signal: new AbortController().signal })
  const realm = bearerRealmIn(new Headers(hosted.fieldsFrom(answer)))
  const { origin, host } = URL.canParse(realm) ? new URL(realm) : aggregate
  if (origin !== aggregate.origin)
    log('warn', 'clients log in elsewhere, without the path of HOSTED_HOSTNAME', { host })
}
