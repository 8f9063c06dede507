/** Which network addresses a redirect or a realm may lead to. Pure. */
import { isIPv4, isIPv6 } from 'node:net'

/** `never`: nobody means to serve images there. `private`: reachable only from inside a network or a machine. */
export type AddressKind = 'never' | 'private' | 'public'

const ranges: readonly [range: string, kind: AddressKind][] = [
  // Metadata services of clouds outside the link-local range: Alibaba, Azure, Oracle, Amazon.
  ['100.100.100.200/32', 'never'],
  ['168.63.129.16/32', 'never'],
  ['192.0.0.192/32', 'never'],
  ['fd00:ec2::254/128', 'never'],
  // Unspecified, link-local, multicast and reserved (RFC 6890).
  ['0.0.0.0/8', 'never'],
  ['169.254.0.0/16', 'never'],
  ['224.0.0.0/3', 'never'],
  ['::/128', 'never'],
  ['fe80::/10', 'never'],
  ['ff00::/8', 'never'],
  // Loopback, private, shared and benchmark networks.
  ['127.0.0.0/8', 'private'],
  ['10.0.0.0/8', 'private'],
  ['172.16.0.0/12', 'private'],
  ['192.168.0.0/16', 'private'],
  ['100.64.0.0/10', 'private'],
  ['192.0.0.0/24', 'private'],
  ['198.18.0.0/15', 'private'],
  ['::1/128', 'private'],
  ['fc00::/7', 'private'],
  ['fec0::/10', 'private'],
]

const compiled = ranges.map(([range, kind]) => {
  const [address = '', bits] = range.split('/')
  return { prefix: bitsOf(address) as string, bits: Number(bits), kind }
})

/** IPv4 inside IPv6: mapped, compatible, NAT64 and 6to4 (RFC 4291, RFC 6052, RFC 3056), by prefix and the place of the IPv4. */
const embedded: readonly [prefix: string, at: number][] = [
  [bitsOf('::ffff:0:0')?.slice(0, 96) as string, 96],
  [bitsOf('64:ff9b::')?.slice(0, 96) as string, 96],
  [bitsOf('2002::')?.slice(0, 16) as string, 16],
  [bitsOf('::')?.slice(0, 96) as string, 96],
]

/** The kind of an IPv4 or IPv6 address; `never` for anything else. */
export function kindOf(address: string): AddressKind {
  const bits = bitsOf(address.replace(/%.*/, ''))
  if (!bits) return 'never'
  const own = compiled.find(
    (one) => one.prefix.length === bits.length && bits.startsWith(one.prefix.slice(0, one.bits)),
  )
  if (own) return own.kind
  const inside = bits.length === 128 && embedded.find(([prefix]) => bits.startsWith(prefix))
  if (!inside) return 'public'
  const [, at] = inside
  return kindOf((bits.slice(at, at + 32).match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)).join('.'))
}

/**
 * The addresses of `candidates` that a registry at `senders` may lead to: never a `never` one, and a private one only if the registry
 * is at a private address itself.
 */
export function allowedOf(candidates: readonly string[], senders: readonly string[]): string[] {
  const isInside = senders.some((address) => kindOf(address) === 'private')
  return candidates.filter((address) => {
    const kind = kindOf(address)
    return kind === 'public' || (kind === 'private' && isInside)
  })
}

/** 32 or 128 binary digits; undefined if it is no address. */
function bitsOf(address: string): string | undefined {
  const binary = (numbers: number[], width: number) => numbers.map((n) => n.toString(2).padStart(width, '0')).join('')
  if (isIPv4(address)) return binary(address.split('.').map(Number), 8)
  if (!isIPv6(address)) return undefined
  const withoutIPv4 = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) => {
    return `${(a * 256 + Number(b)).toString(16)}:${(c * 256 + Number(d)).toString(16)}`
  })
  const [head = [], tail = []] = withoutIPv4.split('::').map((part) => part.split(':').filter(Boolean))
  const zeros = Array(8 - head.length - tail.length).fill('0')
  return binary(
    [...head, ...zeros, ...tail].map((group) => Number.parseInt(group, 16)),
    16,
  )
}
