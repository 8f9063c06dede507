/** How the text of a variable becomes a value. Each throws an Error whose message ends the sentence "NAME …". */
import { match } from '../../routing.ts'
import { Globs } from '../registry/globs.ts'
import { comparable } from '../registry/hosts.ts'
import { networkIn } from '../runtime/networks.ts'

export type Parse<T> = (text: string) => T

export function origin(text: string): URL {
  return address(text, 'without a path', (path) => path === '/')
}

export function originWithPath(text: string): URL {
  return address(text, 'whose path, without /v2, stands before names there', (path) => {
    return !/^\/v2(\/|$)/.test(path) && 'route' in match('GET', `/v2${path.replace(/\/$/, '')}/name/tags/list`)
  })
}

function address(text: string, wanted: string, fits: (path: string) => boolean): URL {
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`
  const url = URL.canParse(withScheme) ? new URL(withScheme) : undefined
  const bare = url && ['http:', 'https:'].includes(url.protocol) && fits(url.pathname) && !url.search && !url.hash
  // A URL takes a mere number for an address.
  if (!url || !bare || /^\d+(:|$)/.test(text))
    throw new Error(`must be host, host:port, or an http or https URL ${wanted}, not "${redacted(text)}"`)
  if (url.username || url.password) throw new Error('must not contain a user or password')
  url.pathname = url.pathname.replace(/\/$/, '')
  return url
}

/** Text before an `@` may be a password, and faults end up in logs. */
function redacted(text: string): string {
  return text.replace(/^([a-z][a-z0-9+.-]*:\/\/)?.*@/is, '$1…@')
}

function number(text: string, wanted: string, maximum = Number.POSITIVE_INFINITY, form = decimal): number {
  if (!form.test(text) || Number(text) > maximum) throw new Error(`must be ${wanted}, not "${text}"`)
  return Number(text)
}
const decimal = /^\d+(\.\d+)?$/

/** At most what setTimeout takes, 2^31 - 1 ms. */
export function seconds(text: string, range = 'above 0', form = /^(?=.*[1-9])\d+(\.\d+)?$/): number {
  return number(text, `a number of seconds ${range}, at most 2000000`, 2_000_000, form)
}

export function secondsOrNever(text: string): number {
  return seconds(text, '(0: never)', decimal)
}

export function gibibytes(text: string): number {
  return number(text, 'a number of GiB') * 1024 ** 3
}

/** Items between commas. A text of only commas is a fault: it may come from two empty variables. */
export function list(text: string): string[] {
  const items = text.split(/\s*,\s*/).filter(Boolean)
  if (text !== '' && items.length === 0) throw new Error(`must be empty, or name at least one, not "${text}"`)
  return items
}

/** Registries as clients write them in `?ns=`, as `comparable` gives them. */
export function hosts(text: string): string[] {
  const hosts = list(text)
  const wrong = hosts.find((one) => !isHost.test(one))
  if (wrong) throw new Error(`must be hosts, or host:port, like docker.io,ghcr.io, not "${redacted(wrong)}"`)
  return hosts.map(comparable)
}

const isHost = /^[\w.-]+(:\d+)?$/

/** Public registries, as HOST=ADDRESS or HOST, between commas or white space. */
export function proxies(text: string): { host: string; address: URL }[] {
  const entries = text.split(/[\s,]+/).filter(Boolean)
  const found = entries.map((entry) => {
    const [, host = '', given] = /^([^=]*)(?:=(.*))?$/.exec(entry) ?? []
    if (!isHost.test(host)) throw new Error(`must be HOST=ADDRESS or HOST, like ghcr.io, not "${redacted(entry)}"`)
    return { host: comparable(host), address: originWithPath(given ?? `https://${host}`) }
  })
  const twice = found.find(({ host }, at) => found.findIndex((one) => one.host === host) < at)
  if (twice) throw new Error(`must name each host once, not "${twice.host}" twice`)
  return found
}

/** Sites, as browsers write them in `Origin` (RFC 6454). */
export function origins(text: string): string[] {
  const sites = list(text)
  const wrong = sites.find((one) => !URL.canParse(one) || new URL(one).origin !== one)
  if (wrong) throw new Error(`must be origins like https://ci.example, not "${redacted(wrong)}"`)
  return sites
}

export function networks(text: string): string[] {
  const networks = list(text)
  const wrong = networks.find((one) => !networkIn(one))
  if (wrong) throw new Error(`must be networks like 10.0.0.0/8,2001:db8::/32, not "${redacted(wrong)}"`)
  return networks
}

export function globs(text: string): Globs {
  const globs = list(text)
  const part = /^(?!.*\*{3})[a-z0-9._*-]+(\/[a-z0-9._*-]+)*$/
  const wrong = globs.find((one) => !part.test(one))
  if (wrong) throw new Error(`must be globs of repository names like acme/**,tools/*, not "${wrong}"`)
  return new Globs(globs)
}

export function wholeNumber(maximum: number): Parse<number> {
  return (text) => number(text, `a whole number from 0 to ${maximum}`, maximum, /^\d+$/)
}

export function oneOf<const T extends string>(...allowed: T[]): Parse<T> & { allowed: T[] } {
  const parse = (text: string): T => {
    const value = allowed.find((one) => one === text)
    if (!value) throw new Error(`must be ${allowed.join(' or ')}, not "${text}"`)
    return value
  }
  return Object.assign(parse, { allowed })
}
