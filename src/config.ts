/** The configuration: one table of environment variables. It is read once, and all faults are named at once. */
import { readUsers } from './access/users.ts'
import { readAuthFile } from './registry/authfile.ts'
import type { Login } from './registry/source.ts'
import { checkProgram, secretIn } from './runtime/files.ts'
import { readCertificates, readKey } from './runtime/tls.ts'
import { loginAt, rules } from './settings/faults.ts'
import {
  gibibytes,
  globs,
  hosts,
  list,
  networks,
  oneOf,
  origin,
  origins,
  originWithPath,
  type Parse,
  proxies,
  seconds,
  secondsOrNever,
  wholeNumber,
} from './settings/parsers.ts'

type Row<T> = readonly [name: string, fallback: string | undefined, parse: Parse<T>, meaning: string]

/** Every setting: its key in `Config`, its variable, its default (undefined: required), how it is parsed, its meaning. */
const table = {
  aggregate: row('AGGREGATE_HOSTNAME', undefined, origin, 'its public name (https://NAME behind a TLS terminator)'),
  hosted: row(
    'HOSTED_HOSTNAME',
    undefined,
    originWithPath,
    'hosted registry: host, host:port (http) or a URL; its path stands before names',
  ),
  proxy: row(
    'PROXY_HOSTNAME',
    undefined,
    originWithPath,
    'pull-through cache: host, host:port (http) or a URL; its path stands before names',
  ),
  port: row('PORT', '5000', wholeNumber(65535), 'port it listens on (0: a free one)'),
  host: row('HOST', '0.0.0.0', String, 'address it listens on (::, if there is only IPv6)'),
  tlsCertFile: row(
    'TLS_CERT_FILE',
    '',
    readableBy(readCertificates),
    'certificate and chain, in PEM: with it the router serves https',
  ),
  tlsKeyFile: row('TLS_KEY_FILE', '', readableBy(readKey), 'the key of the certificate in TLS_CERT_FILE, in PEM'),
  caFile: row(
    'CA_FILE',
    '',
    readableBy(readCertificates),
    'authorities trusted for upstreams beside the usual ones, in PEM',
  ),
  hostedTimeout: row('HOSTED_TIMEOUT', '30', seconds, "seconds to the first byte of hosted's answer to a GET or HEAD"),
  proxyTimeout: row(
    'PROXY_TIMEOUT',
    '15',
    seconds,
    "seconds to the first byte of a public registry's answer to a GET or HEAD",
  ),
  blobTimeout: row(
    'BLOB_TIMEOUT',
    '300',
    seconds,
    'seconds to the first byte of a layer, which a cache may have to fetch first',
  ),
  writeTimeout: row('WRITE_TIMEOUT', '900', seconds, 'seconds to the first byte of an answer, from the last byte sent'),
  drainTimeout: row('DRAIN_TIMEOUT', '300', seconds, 'seconds that transfers in flight get after SIGTERM'),
  idleTimeout: row('IDLE_TIMEOUT', '300', seconds, 'seconds without a byte, either way, that end a stream'),
  v2Requires: row('V2_REQUIRES', 'both', oneOf('both', 'hosted'), 'which registries must be up for /v2/ to be 200'),
  blobRedirects: row(
    'BLOB_REDIRECTS',
    'pass',
    oneOf('pass', 'follow'),
    'who follows redirects of layers: clients, or the router',
  ),
  lookupOrder: row('LOOKUP_ORDER', 'proxy-first', oneOf('proxy-first', 'hosted-first'), 'whom a lookup asks first'),
  hostedNames: row('HOSTED_NAMES', '', globs, 'globs of names only hosted may serve: acme/**,tools/*'),
  proxyNames: row('PROXY_NAMES', '**', globs, 'globs of names the proxy may be asked for'),
  proxies: row('PROXIES', '', proxies, 'other public registries: HOST=ADDRESS, or HOST for https://HOST'),
  proxyNs: row('PROXY_NS', 'docker.io', hosts, 'registries whose ?ns= (containerd mirrors) the proxy answers for'),
  hostedNs: row(
    'HOSTED_NS',
    '',
    hosts,
    'registries whose ?ns= hosted answers for: its own address, if nodes mirror it',
  ),
  tags: row('TAGS', 'hosted', oneOf('hosted', 'lookup'), "whose tags are listed: hosted's, or looked up as a manifest"),
  copyLimit: row(
    'COPY_LIMIT',
    '2',
    gibibytes,
    'GiB of the largest layer that is copied from the proxy for a push (0: none)',
  ),
  htpasswdFile: row('HTPASSWD_FILE', '', readableBy(readUsers), 'bcrypt user file: a login is required here'),
  anonymousPull: row(
    'ANONYMOUS_PULL',
    'false',
    oneOf('false', 'true', 'public'),
    'with HTPASSWD_FILE: what may be read without a login, all or what only public registries serve',
  ),
  pushUsers: row('PUSH_USERS', '', list, 'with HTPASSWD_FILE: who may write (none named: all)'),
  trustedOrigins: row('TRUSTED_ORIGINS', '', origins, 'sites whose pages may write: https://ci.example'),
  trustedProxies: row('TRUSTED_PROXIES', '', networks, 'whose X-Forwarded-For is believed: 10.0.0.0/8,2001:db8::/32'),
  hostedUsername: row('HOSTED_USERNAME', '', String, "with HTPASSWD_FILE: the router's own login at hosted"),
  hostedPassword: row('HOSTED_PASSWORD', '', String, 'the password of HOSTED_USERNAME'),
  hostedPasswordFile: row(
    'HOSTED_PASSWORD_FILE',
    '',
    readableBy(secretIn),
    'file that holds the password of HOSTED_USERNAME',
  ),
  hostedCommand: row(
    'HOSTED_CREDENTIALS_COMMAND',
    '',
    readableBy(checkProgram),
    "docker-credential-helper that gives the router's own login at hosted",
  ),
  proxyUsername: row('PROXY_USERNAME', '', String, "the router's own login at the proxy"),
  proxyPassword: row('PROXY_PASSWORD', '', String, 'the password of PROXY_USERNAME'),
  proxyPasswordFile: row(
    'PROXY_PASSWORD_FILE',
    '',
    readableBy(secretIn),
    'file that holds the password of PROXY_USERNAME',
  ),
  proxyCommand: row(
    'PROXY_CREDENTIALS_COMMAND',
    '',
    readableBy(checkProgram),
    "docker-credential-helper that gives the router's own login at the proxy",
  ),
  authFile: row('AUTH_FILE', '', readableBy(readAuthFile), "logins of registries, as docker's config.json has them"),
  helpersDir: row(
    'CREDENTIAL_HELPERS_DIR',
    '',
    String,
    "the only folder of programs that AUTH_FILE's credHelpers may name",
  ),
  credentialsInterval: row(
    'CREDENTIALS_INTERVAL',
    '600',
    seconds,
    'seconds after which a docker-credential-helper is asked again',
  ),
  hostedCertFile: row(
    'HOSTED_CERT_FILE',
    '',
    readableBy(readCertificates),
    "the router's certificate for hosted, in PEM",
  ),
  hostedKeyFile: row('HOSTED_KEY_FILE', '', readableBy(readKey), 'the key of the certificate in HOSTED_CERT_FILE'),
  proxyCertFile: row('PROXY_CERT_FILE', '', readableBy(readCertificates), "the router's certificate for the proxy"),
  proxyKeyFile: row('PROXY_KEY_FILE', '', readableBy(readKey), 'the key of the certificate in PROXY_CERT_FILE'),
  lookupTtl: row('LOOKUP_TTL', '60', secondsOrNever, 'seconds a verdict or a manifest is remembered (0: never)'),
  nameTtl: row('NAME_TTL', '3600', secondsOrNever, 'seconds a name that the proxy lacks is remembered (0: never)'),
  tagTtl: row('TAG_TTL', '0', secondsOrNever, 'seconds a public tag is answered from memory (0: never)'),
  staleIfError: row(
    'STALE_IF_ERROR',
    '0',
    secondsOrNever,
    "seconds a public registry's last answer stands in for one it fails to give (0: never)",
  ),
  manifestMemory: row('MANIFEST_MEMORY', '64', wholeNumber(65536), 'MiB of manifests by digest kept (0: none)'),
  logFormat: row('LOG_FORMAT', 'json', oneOf('json', 'text'), 'how log lines are written'),
  logLevel: row('LOG_LEVEL', 'info', oneOf('debug', 'info', 'warn', 'error'), 'the least that is logged'),
}

type Values = { [Key in keyof typeof table]: (typeof table)[Key] extends Row<infer T> ? T : never }

export type Config = Values & {
  /** The router's own logins. */
  hostedLogin?: Login
  proxyLogin?: Login
  /** Whether hosted gets the client's login. With HTPASSWD_FILE it gets the router's own, or none. */
  passLogin: boolean
}

type Environment = Readonly<Record<string, string | undefined>>

/** What was read if some of it is wrong. A faulty value is the text as it came. */
interface Faulty {
  faults: string[]
  values: Values
}

/** Reads every variable; an empty one counts as missing. Gives the faults, one line each, if there are any. */
export function readConfig(environment: Environment): Config | Faulty {
  const faults: string[] = []
  const entries = Object.entries(table).map(([key, [name, fallback, parse, meaning]]) => {
    const text = environment[name]?.trim() || fallback
    try {
      if (text === undefined) throw new Error(`is required: ${meaning}`)
      return [key, parse(text)]
    } catch (fault) {
      faults.push(`${name} ${(fault as Error).message}`)
      // The rules only ask whether it is there.
      return [key, text]
    }
  })
  const values: Values = Object.fromEntries(entries)
  faults.push(...rules(values, environment))
  if (faults.length > 0) return { faults, values }
  const named = environment.AGGREGATE_HOSTNAME ?? ''
  return {
    ...values,
    aggregate: values.tlsCertFile && !named.includes('://') ? origin(`https://${named.trim()}`) : values.aggregate,
    hostedLogin: values.hostedUsername ? loginAt('hosted', values) : undefined,
    proxyLogin: values.proxyUsername ? loginAt('proxy', values) : undefined,
    passLogin: !values.htpasswdFile,
  }
}

/** The rows of the table. */
export const settings: readonly Row<unknown>[] = Object.values(table)

/** The table as `--help` prints it. */
export function configHelp(): string {
  const lines = Object.values(table).map(([name, fallback = 'required', parse, meaning]) => {
    const choice = 'allowed' in parse ? `${(parse.allowed as string[]).join(' or ')}: ` : ''
    return `  ${name.padEnd(27)}${(fallback || 'none').padEnd(13)}${choice}${meaning}`
  })
  return lines.join('\n')
}

function row<T>(...columns: Row<T>): Row<T> {
  return columns
}

function readableBy(read: (path: string) => unknown): Parse<string> {
  return (path) => {
    if (path !== '') read(path)
    return path
  }
}
