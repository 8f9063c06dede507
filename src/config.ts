/** The configuration: one table of environment variables, read once, every fault named at once. */
import type { UpstreamName } from '../routing.ts'

export interface Config {
  /** Public name clients use, as `host` or `host:port`, and the scheme they use it with. */
  aggregate: { host: string; scheme: 'http' | 'https' }
  /** Where each registry is: an origin such as `http://10.0.0.2:5000`, never more. */
  origins: Record<UpstreamName, string>
  port: number
  host: string
  /** Seconds to the first byte of an answer: to a read, by upstream, and to a write. */
  readTimeout: Record<UpstreamName, number>
  writeTimeout: number
  /** Seconds that requests in flight get after SIGTERM. */
  drainTimeout: number
  v2Requires: 'both' | 'hosted'
  lookupOrder: 'proxy-first' | 'hosted-first'
  logFormat: 'json' | 'text'
  logLevel: 'debug' | 'info' | 'warn' | 'error'
}

type Environment = Readonly<Record<string, string | undefined>>
/** Gives the value, or throws an Error whose message ends the sentence "NAME …". */
type Parse<T> = (text: string) => T

interface Variable<T = unknown> {
  name: string
  /** Absent: the variable is required. */
  fallback?: string
  meaning: string
  parse: Parse<T>
}

const variables = {
  aggregate: variable(
    'AGGREGATE_HOSTNAME',
    undefined,
    'public name of the entry point (https://NAME behind TLS)',
    (text) => {
      const { host, protocol } = origin(text)
      return { host, scheme: protocol === 'https:' ? ('https' as const) : ('http' as const) }
    },
  ),
  hosted: variable(
    'HOSTED_HOSTNAME',
    undefined,
    'hosted registry: host, host:port (http) or a URL',
    (text) => origin(text).origin,
  ),
  proxy: variable('PROXY_HOSTNAME', undefined, 'pull-through cache: likewise', (text) => origin(text).origin),
  port: variable('PORT', '5000', 'port it listens on; 0: a free one', wholeNumber(65535)),
  host: variable('HOST', '0.0.0.0', 'address it listens on', (text) => text),
  hostedTimeout: variable(
    'HOSTED_TIMEOUT',
    '30',
    "seconds to the first byte of hosted's answer to a GET or HEAD",
    seconds,
  ),
  proxyTimeout: variable('PROXY_TIMEOUT', '15', "the same for the proxy's", seconds),
  writeTimeout: variable(
    'WRITE_TIMEOUT',
    '900',
    'seconds to the first byte of an answer to a write, from the last byte sent',
    seconds,
  ),
  drainTimeout: variable('DRAIN_TIMEOUT', '300', 'seconds that transfers in flight get after SIGTERM', seconds),
  v2Requires: variable(
    'V2_REQUIRES',
    'both',
    'both: /v2/ is 200 only if both registries are up; hosted: hosted is enough',
    oneOf('both', 'hosted'),
  ),
  lookupOrder: variable(
    'LOOKUP_ORDER',
    'proxy-first',
    'proxy-first or hosted-first',
    oneOf('proxy-first', 'hosted-first'),
  ),
  logFormat: variable('LOG_FORMAT', 'json', 'json or text, one line a request', oneOf('json', 'text')),
  logLevel: variable('LOG_LEVEL', 'info', 'debug, info, warn or error', oneOf('debug', 'info', 'warn', 'error')),
}

/** Reads every variable. An empty one counts as missing. Returns the faults, one line each, where there are any. */
export function readConfig(environment: Environment): { config: Config } | { faults: string[] } {
  const faults: string[] = []
  const read = <T>({ name, fallback, meaning, parse }: Variable<T>): T => {
    const text = environment[name]?.trim() || fallback
    try {
      if (text === undefined) throw new Error(`is required: ${meaning}`)
      return parse(text)
    } catch (fault) {
      faults.push(`${name} ${(fault as Error).message}`)
      return undefined as T
    }
  }
  const config: Config = {
    aggregate: read(variables.aggregate),
    origins: { hosted: read(variables.hosted), proxy: read(variables.proxy) },
    port: read(variables.port),
    host: read(variables.host),
    readTimeout: { hosted: read(variables.hostedTimeout), proxy: read(variables.proxyTimeout) },
    writeTimeout: read(variables.writeTimeout),
    drainTimeout: read(variables.drainTimeout),
    v2Requires: read(variables.v2Requires),
    lookupOrder: read(variables.lookupOrder),
    logFormat: read(variables.logFormat),
    logLevel: read(variables.logLevel),
  }
  return faults.length > 0 ? { faults } : { config }
}

/** The configuration table as `--help` prints it. */
export function configHelp(): string {
  const lines = Object.values(variables).map(({ name, fallback, meaning }) => {
    return `  ${name.padEnd(20)}${(fallback ?? 'required').padEnd(13)}${meaning}`
  })
  return lines.join('\n')
}

function variable<T>(name: string, fallback: string | undefined, meaning: string, parse: Parse<T>): Variable<T> {
  return { name, fallback, meaning, parse }
}

function origin(text: string): URL {
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`
  const url = URL.canParse(withScheme) ? new URL(withScheme) : undefined
  const bare = url && ['http:', 'https:'].includes(url.protocol) && url.pathname === '/' && !url.search && !url.hash
  if (!url || !bare)
    throw new Error(`must be host, host:port, or an http or https URL without a path, not "${redacted(text)}"`)
  if (url.username || url.password) throw new Error('must not contain a user or password')
  return url
}

/** What stands before an `@` may be a password, and faults end up in logs. */
function redacted(text: string): string {
  return text.replace(/[^/]*@/, '…@')
}

function seconds(text: string): number {
  const value = Number(text)
  // setTimeout takes at most 2^31 - 1 ms.
  if (!/^\d+(\.\d+)?$/.test(text) || value === 0 || value > 2_000_000) {
    throw new Error(`must be a number of seconds above 0, not "${text}"`)
  }
  return value
}

function wholeNumber(most: number): Parse<number> {
  return (text) => {
    if (!/^\d+$/.test(text) || Number(text) > most)
      throw new Error(`must be a whole number from 0 to ${most}, not "${text}"`)
    return Number(text)
  }
}

function oneOf<const T extends string>(...allowed: T[]): Parse<T> {
  return (text) => {
    const value = allowed.find((one) => one === text)
    if (!value) throw new Error(`must be ${allowed.join(' or ')}, not "${text}"`)
    return value
  }
}
