/** A registry's own realm, asked for a client that cannot reach it (distribution, "Token Authentication Specification"). */
import type { Asked, Fetch, Fields, Reply } from '../runtime/runtime.ts'
import { parseChallenges } from './challenge.ts'
import { readBytes, readOciError } from './errors.ts'
import { tokenQueryThere } from './names.ts'
import { ownRealm } from './realm.ts'

const maxFormBytes = 65_536

export interface Relaying {
  fetch: Fetch
  /** The address of the registry's `/v2/`. */
  base: string
  /** The path before every name there, or empty. */
  path: string
  /** The public host of this router. */
  routerHost: string
  /** Seconds. */
  readTimeout: number
}

/**
 * Asks the realm that the registry names now. `fields` are those that the registry gets of the client. Undefined if the realm is not
 * on the registry's own host. Rejects with a RangeError if the form of the request is too long.
 */
export async function askRealm(
  { fetch, base, path, routerHost, readTimeout }: Relaying,
  request: Request,
  { authorization, cookie: _, ...fields }: Fields,
): Promise<Reply | undefined> {
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(Math.ceil(readTimeout * 1000))])
  const reply = await fetch(base, { method: 'GET', headers: fields, signal })
  readOciError(reply)
  const url = ownRealm(bearerRealmIn(reply.headers), new URL(base).origin, routerHost)
  if (!url) return undefined
  const headers: Fields = { ...fields, ...(authorization && { authorization }) }
  return fetch(...(await realmRequest(url, request, headers, signal, path)))
}

/** The realm of the Bearer challenge in the fields of an answer; empty if there is none. */
export function bearerRealmIn(headers: Headers): string {
  const challenges = parseChallenges(headers.get('WWW-Authenticate') ?? '')
  return challenges.find(({ scheme }) => scheme === 'bearer')?.realm ?? ''
}

/** The request as the realm at `url` gets it, with the names in scopes as they are called there. */
async function realmRequest(
  url: URL,
  request: Request,
  headers: Fields,
  signal: AbortSignal,
  path: string,
): Promise<[string, Asked]> {
  const [, query = ''] = /\?([^#]*)/.exec(request.url) ?? []
  const search = [url.search.slice(1), tokenQueryThere(query, path)].filter(Boolean).join('&')
  const address = `${url.origin}${url.pathname}${search ? `?${search}` : ''}`
  if (request.method !== 'POST') return [address, { method: 'GET', headers, signal }]
  const form = await readBytes(request, maxFormBytes)
  if (!form) throw new RangeError('the form is too long')
  const body = new Uint8Array(Buffer.from(tokenQueryThere(Buffer.from(form).toString('latin1'), path), 'latin1'))
  return [address, { method: 'POST', headers: { ...headers, 'content-length': `${body.byteLength}` }, body, signal }]
}
