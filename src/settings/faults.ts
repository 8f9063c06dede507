/** Faults that only several variables together have. */
import { entryFor, helperFor, readAuthFile } from '../registry/authfile.ts'
import { comparable } from '../registry/hosts.ts'
import type { Login } from '../registry/source.ts'
import { checkProgram } from '../runtime/files.ts'
import { readPair } from '../runtime/tls.ts'

type OfBoth = 'Username' | 'Password' | 'PasswordFile' | 'Command' | 'CertFile' | 'KeyFile'

/** The values that the rules look at. One that is faulty itself is the text as it came, or missing. */
interface Values extends Record<`${'hosted' | 'proxy'}${OfBoth}`, string> {
  aggregate: URL
  hosted: URL
  proxy: URL
  proxies: readonly { host: string; address: URL }[]
  proxyNs: readonly string[]
  hostedNs: readonly string[]
  pushUsers: readonly string[]
  anonymousPull: string
  htpasswdFile: string
  tlsCertFile: string
  tlsKeyFile: string
  authFile: string
  helpersDir: string
  lookupTtl: number
  tagTtl: number
  staleIfError: number
  manifestMemory: number
}

type Environment = Readonly<Record<string, string | undefined>>

/** Gives them one by one, for people. */
export function* rules(values: Values, environment: Environment): Generator<string> {
  const { aggregate, htpasswdFile, tlsCertFile, tlsKeyFile, anonymousPull, pushUsers } = values
  // A host without a dot may be the first part of a name.
  const before = aggregate?.hostname?.includes('.') ? `${aggregate.hostname}/` : undefined
  for (const name of ['HOSTED_NAMES', 'PROXY_NAMES']) {
    const own = before && environment[name]?.split(/[\s,]+/).find((glob) => glob.startsWith(before))
    if (own) yield `${name} must be globs of names without this router's own before them, not "${own}"`
  }
  for (const who of ['hosted', 'proxy'] as const) {
    const prefix = who.toUpperCase()
    const { username, password, file } = loginAt(who, values)
    if (values[`${who}Command`] && (username || password || file))
      yield `${prefix}_CREDENTIALS_COMMAND and ${prefix}_USERNAME exclude each other`
    if (password && file) yield `${prefix}_PASSWORD and ${prefix}_PASSWORD_FILE exclude each other`
    // RFC 7617, section 2.
    if (username.includes(':')) yield `${prefix}_USERNAME must not contain a colon`
    if (!username !== !(password || file))
      yield `${prefix}_USERNAME and ${prefix}_PASSWORD (or ${prefix}_PASSWORD_FILE) need each other`
  }
  yield* faultsOfProxies(values)
  yield* faultsOfAuthFile(values)
  for (const [name, value] of [
    ['HOSTED_USERNAME', values.hostedUsername],
    ['HOSTED_CREDENTIALS_COMMAND', values.hostedCommand],
  ])
    if (value && !htpasswdFile) yield `${name} needs HTPASSWD_FILE: without it strangers would get the router's rights`
  if (anonymousPull !== 'false' && !htpasswdFile) yield 'ANONYMOUS_PULL needs HTPASSWD_FILE'
  for (const [name, value] of [
    ['TAG_TTL', values.tagTtl],
    ['STALE_IF_ERROR', values.staleIfError],
  ] as const) {
    const isOff = values.lookupTtl === 0 || values.manifestMemory === 0
    if (value > 0 && isOff) yield `${name} needs LOOKUP_TTL and MANIFEST_MEMORY above 0`
  }
  yield* faultsOfPair('TLS', tlsCertFile, tlsKeyFile)
  for (const who of ['hosted', 'proxy'] as const) {
    const [certFile, prefix] = [values[`${who}CertFile`], who.toUpperCase()]
    yield* faultsOfPair(prefix, certFile, values[`${who}KeyFile`])
    if (certFile && values[who]?.protocol === 'http:')
      yield `${prefix}_CERT_FILE needs ${prefix}_HOSTNAME to be https://…`
  }
  if (pushUsers.length > 0 && !htpasswdFile) yield 'PUSH_USERS needs HTPASSWD_FILE'
}

function* faultsOfPair(prefix: string, certFile: string, keyFile: string): Generator<string> {
  const both = `${prefix}_CERT_FILE and ${prefix}_KEY_FILE`
  if (!certFile !== !keyFile) yield `${both} need each other`
  try {
    if (certFile && keyFile) readPair(certFile, keyFile)
  } catch (error) {
    const { message } = error as Error
    if (/ do not fit each other$/.test(message)) yield `${both} do not fit each other`
    // What is wrong with one of the files is a fault of that one.
    else if (!/^(cannot|must) /.test(message)) yield `${both} cannot be used: ${message}`
  }
}

/** A host that two settings name, and an address that cannot be meant. */
function* faultsOfProxies({ aggregate, hosted, proxies, proxyNs, hostedNs }: Values): Generator<string> {
  // Values that are faulty themselves are named already.
  if (![proxies, proxyNs, hostedNs].every(Array.isArray)) return
  for (const { host, address } of proxies) {
    if (host === comparable(aggregate?.host ?? '')) yield `PROXIES must not name this router's own host, ${host}`
    if (proxyNs.includes(host)) yield `PROXIES must not name ${host}: PROXY_HOSTNAME serves it (PROXY_NS)`
    if (address.host === aggregate?.host) yield `PROXIES must not lead ${host} to this router's own address`
    if (address.host === hosted?.host && address.pathname === hosted.pathname)
      yield `PROXIES must not lead ${host} to HOSTED_HOSTNAME`
  }
  const both = hostedNs.find((one) => proxyNs.includes(one) || proxies.some(({ host }) => host === one))
  if (both) yield `HOSTED_NS must not name ${both}: it is a public registry (PROXIES, PROXY_NS)`
}

/** What AUTH_FILE has for a registry that is here, but cannot be used. */
function* faultsOfAuthFile({ authFile, helpersDir, hosted, proxy, proxies, htpasswdFile }: Values): Generator<string> {
  if (!authFile || !proxy?.host || !hosted?.host || !Array.isArray(proxies)) return
  let file: ReturnType<typeof readAuthFile>
  try {
    file = readAuthFile(authFile)
  } catch {
    // That is named already.
    return
  }
  for (const address of [proxy, ...proxies.map((one) => one.address), ...(htpasswdFile ? [hosted] : [])]) {
    const helper = helperFor(file, address, helpersDir)
    if (helper && !helpersDir) yield `AUTH_FILE names a program for ${address.host}: it needs CREDENTIAL_HELPERS_DIR`
    else if (helper) yield* faultsOfProgram(helper)
    const unusable = !helper && entryFor(file.entries, address)?.unusable
    if (unusable) yield `AUTH_FILE ${unusable} (${address.host})`
  }
}

function* faultsOfProgram(path: string): Generator<string> {
  try {
    checkProgram(path)
  } catch (error) {
    yield `AUTH_FILE names ${path}, which ${(error as Error).message}`
  }
}

export function loginAt(who: 'hosted' | 'proxy', values: Values): Login {
  return { username: values[`${who}Username`], password: values[`${who}Password`], file: values[`${who}PasswordFile`] }
}
