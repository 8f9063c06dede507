/** Networks, IPv4 (RFC 4632) and IPv6 (RFC 4291), and whether an address is in one of them. */
import { BlockList, isIP, isIPv6 } from 'node:net'

interface Network {
  address: string
  /** Bits that its addresses have in common. */
  length: number
  version: 4 | 6
}

/** `10.0.0.0/8`; an address is a network of its own. IPv4 in IPv6 is IPv4 (RFC 4291, section 2.5.5.2). Undefined if it is none. */
export function networkIn(text: string): Network | undefined {
  const [, mapped, address = '', bits] = /^(::ffff:)?([^/%]+)(?:\/(\d{1,3}))?$/i.exec(text) ?? []
  const version = isIP(address)
  if (version !== 4 && version !== 6) return undefined
  const most = version === 4 ? 32 : 128
  const length = bits === undefined ? most : Number(bits) - (mapped ? 96 : 0)
  return length < 0 || length > most ? undefined : { address, length, version }
}

export class Networks {
  // Two lists: in one, `::/0` holds IPv4 on Node and Bun, and not on Deno.
  readonly #lists = { 4: new BlockList(), 6: new BlockList() }

  constructor(texts: readonly string[]) {
    for (const text of texts) {
      const network = networkIn(text)
      if (network) this.#lists[network.version].addSubnet(network.address, network.length, `ipv${network.version}`)
    }
  }

  has(address: string): boolean {
    const version = isIP(address)
    return (version === 4 || version === 6) && this.#lists[version].check(address, `ipv${version}`)
  }
}

/** The network of an address. An IPv6 host has a whole /64 (RFC 4291, section 2.5.4), so a new address for each guess. */
export function networkOf(address: string): string {
  if (!isIPv6(address)) return address
  const [head = [], tail = []] = address.split('::').map((part) => part.split(':'))
  const zeros = address.includes('::') ? Array(8 - head.length - tail.length).fill('0') : []
  return [...head, ...zeros, ...tail].slice(0, 4).join(':')
}
