/** Whose request it is: the address a client has, and the network that answers for it. */
import { isIP } from 'node:net'
import type { Networks } from '../runtime/networks.ts'
import type { Connection } from '../runtime/runtime.ts'

/** A connection whose address is the client's; `peer` is the address of its other end. */
export function withClient(connection: Connection, { headers }: Request, trustedProxies: Pick<Networks, 'has'>) {
  const { address: peer, upload, bodyRead, sent } = connection
  return { address: clientAddress(peer, headers.get('X-Forwarded-For'), trustedProxies), peer, upload, bodyRead, sent }
}

/** Proxies behind each other. Whoever sends a longer field made it up. */
const maxProxies = 100

/**
 * The address of a client. `peer` is the other end of its connection. If that is a trusted proxy, the last address of
 * `X-Forwarded-For` is whom the proxy got the request from; and so on, up to the first address that is no trusted proxy. What is no
 * address ends the reading.
 */
export function clientAddress(
  peer: string | undefined,
  forwardedFor: string | null,
  trustedProxies: Pick<Networks, 'has'>,
): string | undefined {
  if (!peer || !forwardedFor || !trustedProxies.has(peer)) return peer
  let client = peer
  for (const entry of forwardedFor.split(',').slice(-maxProxies).reverse()) {
    const address = addressIn(entry.trim())
    if (!address) break
    client = address
    if (!trustedProxies.has(client)) break
  }
  return client
}

/** The address in an entry of `X-Forwarded-For`, in its usual form. Some proxies add the port; an IPv6 address then has brackets. */
function addressIn(entry: string): string | undefined {
  const [, v4, bracketed] = /^(\d+\.\d+\.\d+\.\d+)(?::\d+)?$|^\[([\da-f:.]+)\](?::\d+)?$/i.exec(entry) ?? []
  const address = v4 ?? bracketed ?? entry
  if (isIP(address) !== 6) return isIP(address) ? address : undefined
  const url = `http://[${address}]`
  if (!URL.canParse(url)) return undefined
  return unmapped(new URL(url).hostname.slice(1, -1))
}

/** IPv4 in IPv6 (RFC 4291, section 2.5.5.2) is IPv4. */
function unmapped(address: string): string {
  const [, high, low] = /^::ffff:([\da-f]+):([\da-f]+)$/.exec(address) ?? []
  if (!high || !low) return address
  return [high, low].flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]).join('.')
}
