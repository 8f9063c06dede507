/** What the settings show by themselves, without asking anybody. */

import { networkInterfaces } from 'node:os'
import { readUsers } from '../access/users.ts'
import type { Globs } from '../registry/globs.ts'
import { certificateIn } from '../runtime/certificate.ts'
import { readPair } from '../runtime/tls.ts'
import { type Finding, finding } from './findings.ts'
import type { NearMiss } from './misspelt.ts'
import type { Code } from './table.ts'

/** The settings that decide it. */
export interface ReadSettings {
  /** This router's public address. */
  aggregate: URL
  hosted: URL
  proxy: URL
  proxies: readonly { host: string; address: URL }[]
  port: number
  host: string
  lookupOrder: string
  hostedNames: Globs
  proxyNames: Globs
  htpasswdFile: string
  pushUsers: readonly string[]
  tlsCertFile: string
  tlsKeyFile: string
}

/** A warning is due this long before the router's own certificate ends. */
const endingMs = 14 * 24 * 3600 * 1000

export function judgeSettings(settings: ReadSettings, misspelt: readonly NearMiss[]): Finding[] {
  return [
    ...misspelt.map((one) => finding('misspelt-variable', { ...one })),
    ...judgeAddresses(settings),
    ...judgeOrder(settings),
    ...judgeUsers(settings),
    ...judgeCertificate(settings),
  ]
}

/** The registries by name, in the order in which people see them. */
export function addressesIn({ hosted, proxy, proxies }: ReadSettings): [name: string, address: URL][] {
  return [['proxy', proxy], ['hosted', hosted], ...proxies.map(({ host, address }) => [host, address] as [string, URL])]
}

function judgeAddresses(settings: ReadSettings): Finding[] {
  const addresses = addressesIn(settings)
  const own = addresses.filter(([, address]) => isOwn(address, settings))
  const same = addresses.flatMap(([name, address], at) => {
    const other = addresses
      .slice(0, at)
      .find(([, one]) => one.host === address.host && one.pathname === address.pathname)
    return other ? [finding('same-registry', { upstream: name, other: other[0] })] : []
  })
  return [...own.map(([upstream]) => finding('own-address', { upstream })), ...same]
}

/** The public name of this router, or an address of this machine with the port that it listens on. */
function isOwn({ host, hostname, port, protocol }: URL, { aggregate, port: ownPort, host: listensOn }: ReadSettings) {
  if (host === aggregate.host) return true
  if (Number(port || (protocol === 'https:' ? 443 : 80)) !== ownPort) return false
  const here = ['0.0.0.0', '::'].includes(listensOn)
    ? Object.values(networkInterfaces()).flatMap((some = []) => some.map(({ address }) => address))
    : [listensOn]
  const bare = hostname.replace(/^\[|\]$/g, '')
  return here.includes(bare) || (bare === 'localhost' && here.some((one) => /^127\.|^::1$/.test(one)))
}

function judgeOrder({ lookupOrder, hostedNames, proxyNames }: ReadSettings): Finding[] {
  const isOpen = lookupOrder === 'proxy-first' && hostedNames.isEmpty && proxyNames.isAll
  return isOpen ? [finding('names-unset')] : []
}

function judgeUsers({ pushUsers, htpasswdFile }: ReadSettings): Finding[] {
  const users = pushUsers.length > 0 ? readUsers(htpasswdFile) : new Map()
  return pushUsers.filter((one) => !users.has(one)).map((user) => finding('user-unknown', { user }))
}

function judgeCertificate({ tlsCertFile, tlsKeyFile, aggregate }: ReadSettings): Finding[] {
  if (!tlsCertFile) return []
  try {
    readPair(tlsCertFile, tlsKeyFile)
  } catch (error) {
    return [finding('setting-wrong', { fault: (error as Error).message })]
  }
  const { from, until, isFor } = certificateIn(tlsCertFile)
  const now = Date.now()
  const found: Code[] = []
  if (now < from.getTime()) found.push('own-certificate-early')
  if (now > until.getTime()) found.push('own-certificate-expired')
  else if (now > until.getTime() - endingMs) found.push('own-certificate-ends')
  if (!isFor(aggregate.hostname.replace(/^\[|\]$/g, ''))) found.push('own-certificate-name')
  return found.map((code) => finding(code, { from: from.toISOString(), until: until.toISOString() }))
}
