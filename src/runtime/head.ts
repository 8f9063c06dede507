/** Refuses requests whose head is ambiguous: two servers could read two different requests in it (RFC 9112, section 11.2). */
import type { IncomingMessage } from 'node:http'
import { respond } from './body.ts'

/** Lines of header fields in one request; clients send a few dozen. */
const maxFields = 1000

/** The answer to a request that must not be carried out; undefined if its head is sound. */
export function faultOfHead({ rawHeaders, httpVersion }: Pick<IncomingMessage, 'rawHeaders' | 'httpVersion'>) {
  if (rawHeaders.length > 2 * maxFields) return refusal(431, `more than ${maxFields} header fields`)
  const valuesOf = (wanted: string) =>
    rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === wanted)
  const [lengths, codings, hosts] = ['content-length', 'transfer-encoding', 'host'].map(valuesOf) as [
    string[],
    string[],
    string[],
  ]
  // RFC 9112, section 3.2.
  if (hosts.length > 1) return refusal(400, 'more than one Host field')
  // RFC 9112, section 6.3: equal lengths may be taken for one, but not every server does.
  if (lengths.length > 1 || lengths[0]?.includes(',')) return refusal(400, 'more than one Content-Length')
  if (codings.length === 0) return undefined
  // RFC 9112, section 6.1.
  if (httpVersion === '1.0') return refusal(400, 'HTTP/1.0 has no Transfer-Encoding')
  if (lengths.length > 0) return refusal(400, 'both Content-Length and Transfer-Encoding')
  return /^chunked$/i.test(codings.join(', ').trim())
    ? undefined
    : refusal(501, 'only the transfer coding chunked is known')
}

/** An OCI error, after which the connection is closed: nobody knows where the next request begins. */
function refusal(status: number, message: string): Response {
  const body = `${JSON.stringify({ errors: [{ code: 'UNSUPPORTED', message }] })}\n`
  return respond(body, { status, headers: { 'Content-Type': 'application/json', Connection: 'close' } })
}
