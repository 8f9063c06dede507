/** Builds the registries from the configuration: the only place that knows what each of them is given. */
import { addressesIn } from './check/settings.ts'
import type { Known } from './check/subject.ts'
import type { Config } from './config.ts'
import type { Log } from './log.ts'
import type { Registry } from './registry/answer.ts'
import { AuthLogins } from './registry/authfile.ts'
import { comparable, keyOf } from './registry/hosts.ts'
import { type Identity, withIdentity } from './registry/identity.ts'
import { withLogin } from './registry/login.ts'
import { type RegistryOptions, RemoteRegistry } from './registry/registry.ts'
import { CommandSource, fixed, fromFile, type Login, type LoginSource } from './registry/source.ts'
import type { Registries } from './relay/exchange.ts'
import type { Metrics } from './report/metrics.ts'
import type { Page } from './report/page/page.ts'
import type { Shortages } from './report/shortages.ts'
import type { Fetch } from './runtime/runtime.ts'

interface Surroundings {
  fetch: Fetch
  /** Milliseconds. */
  now: () => number
  log: Log
  metrics: Pick<Metrics, 'answered' | 'skips'>
  page: Pick<Page, 'skips'>
  shortages: Pick<Shortages, 'saw'>
}

export function createRegistries(config: Config, around: Surroundings): Registries {
  return build(config, around, proofsFor(config, around.log))
}

function build(config: Config, around: Surroundings, proofs: ReadonlyMap<string, Proof>): Registries {
  const { blobTimeout, writeTimeout, aggregate: router, proxyTimeout: readTimeout } = config
  const common = { blobTimeout, writeTimeout, router, followsBlobs: config.blobRedirects === 'follow', prefix: '' }
  const proofOf = (name: string) => proofs.get(name) as Proof
  const publicOnes = { ...common, role: 'public', readTimeout, forwardsLogin: false } as const
  const proxy = create(
    {
      ...publicOnes,
      name: 'proxy',
      title: titleOf(config.proxyNs, config.proxy),
      address: config.proxy,
      path: pathOf(config.proxy),
    },
    proofOf('proxy'),
    around,
  )
  const hosted = create(
    {
      ...common,
      name: 'hosted',
      title: 'the private registry',
      role: 'hosted',
      address: config.hosted,
      path: pathOf(config.hosted),
      readTimeout: config.hostedTimeout,
      // With HTPASSWD_FILE it gets the router's own login, or none.
      forwardsLogin: config.passLogin,
    },
    proofOf('hosted'),
    around,
  )
  const others = config.proxies.map(({ host, address }) =>
    create(
      {
        ...publicOnes,
        name: host,
        title: titleOf([host], address),
        address,
        path: pathOf(address),
        prefix: `/${host}`,
      },
      proofOf(host),
      around,
    ),
  )
  return { hosted, proxy, byName: new Map([proxy, hosted, ...others].map((one) => [one.name, one])) }
}

/**
 * The registries for questions that no client asks: no metric counts the answers, and no log has them. `runsPrograms`: whether
 * registries whose login comes from a program are asked too. Each would start its program again, and at every interval.
 */
export function createUncounted(config: Config, fetch: Fetch, now: () => number, runsPrograms: boolean): Known[] {
  const quiet = () => {}
  const observers = { metrics: { answered: quiet, skips: quiet }, page: { skips: quiet }, shortages: { saw: quiet } }
  const all = proofsFor(config, quiet)
  const isAsked = (name: string) => runsPrograms || !all.get(name)?.command
  const proofs = new Map([...all].map(([name, proof]) => [name, isAsked(name) ? proof : { ...proof, command: '' }]))
  const { byName } = build(config, { fetch, now, log: quiet, ...observers }, proofs)
  return addressesIn(config)
    .filter(([name]) => isAsked(name))
    .map(([name, address]) => ({ registry: byName.get(name) as Registry, address }))
}

/** A public registry as those who pull know it. At an address on another host it is a cache. */
function titleOf(hosts: readonly string[], address: URL): string {
  const [host] = hosts
  if (host === undefined || hosts.length > 1) return 'the public registry'
  return comparable(address.host) === host ? host : `the cache of ${host}`
}

/** The path before every name at an address, from its first slash on; or empty. */
const pathOf = ({ pathname }: URL) => pathname.replace(/\/$/, '')

/** How the router proves itself to a registry. */
interface Proof {
  login?: Login
  /** A program that gives the login, or empty. */
  command: string
  intervalSeconds: number
  identity?: Identity
  /** The logins that have one for this registry too. */
  logins?: AuthLogins
}

/** By the name of the registry. */
function proofsFor(config: Config, log: Log): Map<string, Proof> {
  const logins = config.authFile ? new AuthLogins(config.authFile, config.helpersDir, log) : undefined
  const proxies = [{ host: 'proxy', address: config.proxy }, ...config.proxies]
  const hosted = { host: 'hosted', address: config.hosted }
  const withFile = config.passLogin ? proxies : [...proxies, hosted]
  logins?.tell(
    withFile.map(({ host: name, address }) => ({ name, address })),
    log,
  )
  const proofs = [...proxies, hosted].map(({ host, address }): [string, Proof] => {
    const who = host === 'proxy' || host === 'hosted' ? host : undefined
    return [host, proofFor(address, config, who === 'hosted' && config.passLogin ? undefined : logins, who)]
  })
  return new Map(proofs)
}

/** `who`: what begins the names of the registry's own settings. They come before AUTH_FILE. */
function proofFor(address: URL, config: Config, logins?: AuthLogins, who?: 'hosted' | 'proxy'): Proof {
  const own = who && {
    login: config[`${who}Login`],
    command: config[`${who}Command`],
    identity: { certFile: config[`${who}CertFile`], keyFile: config[`${who}KeyFile`] },
  }
  const hasOwn = own?.login || own?.command
  const helper = hasOwn ? '' : (logins?.helperFor(address) ?? '')
  const proof = { command: helper, intervalSeconds: config.credentialsInterval, ...own }
  return { ...proof, command: own?.command || helper, logins: hasOwn || helper ? undefined : logins }
}

/** Where a login comes from; undefined if there is none. */
function sourceOf(proof: Proof, address: URL, log: Log, now: () => number): LoginSource | undefined {
  const { login, command, intervalSeconds, logins } = proof
  if (command) return new CommandSource({ command, host: keyOf(address.host), intervalSeconds, now, log })
  if (login) return login.file ? fromFile(login.username, login.file, log) : fixed(login)
  return logins?.sourceFor(address, log)
}

function create(options: RegistryOptions, proof: Proof, around: Surroundings): RemoteRegistry {
  const { name, role, address, readTimeout } = options
  const { now, metrics, page, shortages } = around
  const log: Log = (level, message, fields) => around.log(level, message, { upstream: name, ...fields })
  const routerHost = options.router.host
  const source = sourceOf(proof, address, log, now)
  // Public registries give anonymous tokens, so their challenges are answered even without a login.
  const isAnswered = source !== undefined || role === 'public'
  const { identity } = proof
  const plain: Fetch = (url, asked, fresh) => around.fetch(url, { ...asked, isPublic: role === 'public' }, fresh)
  const fetch = identity?.certFile ? withIdentity(plain, identity, address.origin, log) : plain
  return new RemoteRegistry(options, {
    fetch: isAnswered
      ? withLogin(fetch, { source, readTimeout, routerHost, tellsNames: role === 'hosted', now })
      : fetch,
    fetchElsewhere: plain,
    now,
    onAnswer: (answer, isRead) => {
      const { reason, cause, shortage } = answer
      if (shortage) return shortages.saw(shortage, cause ?? '')
      metrics.answered(answer, isRead)
      if (cause) log('warn', 'no usable answer', { reason, cause })
    },
    onBreaker: (isOpen) => {
      page.skips(name, isOpen)
      metrics.skips(name, isOpen)
      log('warn', isOpen ? 'skipped until it is well again' : 'well again')
    },
  })
}
