/** Refuses requests whose head is ambiguous: two servers could read two different requests in it (RFC 9112, section 11.2). */
import type { IncomingMessage } from 'node:http'
import { respond } from './body.ts'

/** Lines of header fields in one request; clients send a few dozen. */
const maxFields = 1000

/** The answer to a request that must not be carried out; undefined if its head is sound. */
export function faultOfHead({ rawHeaders, httpVersion }: Pick<IncomingMessage, 'rawHeaders' | 'httpVersion'>) {
  if (rawHeaders.length > 2 * maxFields) return refusal(431, `more than ${maxFields} header fields`)
  const { host, length, coding } = framingIn(rawHeaders)
  // RFC 9112, section 3.2.
  if (host.length > 1) return refusal(400, 'more than one Host field')
  // RFC 9112, section 6.3: equal lengths may be taken for one, but not every server does.
  if (length.length > 1 || length[0]?.includes(',')) return refusal(400, 'more than one Content-Length')
  if (coding.length === 0) return undefined
  // RFC 9112, section 6.1.
  if (httpVersion === '1.0') return refusal(400, 'HTTP/1.0 has no Transfer-Encoding')
  if (length.length > 0) return refusal(400, 'both Content-Length and Transfer-Encoding')
  return /^chunked$/i.test(coding.join(', ').trim())
    ? undefined
    : refusal(501, 'only the transfer coding chunked is known')
}

/** The values of the fields that frame a request; names and values take turns. Every request pays for this, so it is one pass. */
function framingIn(rawHeaders: readonly string[]): Record<'host' | 'length' | 'coding', string[]> {
  const values = { host: [] as string[], length: [] as string[], coding: [] as string[] }
  const { length } = rawHeaders
  for (let i = 0; i < length; i += 2) {
    const name = rawHeaders[i] as string
    const key = keys[name.length]
    if (key && name.toLowerCase() === key.name) values[key.values].push(rawHeaders[i + 1] as string)
  }
  return values
}

/** By the length of the name, which tells most fields apart. */
const keys: Record<number, { name: string; values: 'host' | 'length' | 'coding' }> = {
  4: { name: 'host', values: 'host' },
  14: { name: 'content-length', values: 'length' },
  17: { name: 'transfer-encoding', values: 'coding' },
}

/** An OCI error, after which the connection is closed: nobody knows where the next request begins. */
function refusal(status: number, message: string): Response {
  const body = `${JSON.stringify({ errors: [{ code: 'UNSUPPORTED', message }] })}\n`
  return respond(body, { status, headers: { 'Content-Type': 'application/json', Connection: 'close' } })
}
