/** The program: environment -> configuration -> service -> runtime. */
import http from 'node:http'
import https from 'node:https'
import process from 'node:process'
import manifest from './package.json' with { type: 'json' }
import { readUsers } from './src/access/users.ts'
import { type Config, configHelp, readConfig } from './src/config.ts'
import { createLog, inBatches, type Level, type Log, type LogFields } from './src/log.ts'
import { toText } from './src/relay/explain.ts'
import { closed, delivered } from './src/runtime/delivered.ts'
import { createFetch, forwardersIn } from './src/runtime/fetch.ts'
import { listen } from './src/runtime/listen.ts'
import { runtime } from './src/runtime/runtime.ts'
import { followPair, type Pair, rootsWith } from './src/runtime/tls.ts'
import { createService } from './src/service.ts'

const { version } = manifest
const help = `combined-registry ${version}: one address for a private registry and a pull-through cache

  --help         this text
  --version      the version
  explain IMAGE  why an image comes from where it comes: the rule, what each registry says now, who wins
  --healthcheck  exit 0 if the router on PORT of this machine is live, 1 if not

Everything else comes from the environment:

${configHelp()}`

/** Milliseconds for clients to close their side, once all is sent. */
const hangUpMs = 30_000

async function start(config: Config, log: Log) {
  // Later than the deadline of any read, since that one says more.
  const connectMs = Math.max(config.hostedTimeout, config.proxyTimeout) * 1000 + 1000
  const fetch = await createFetch(rootsWith(config.ca), connectMs).catch((error: Error) => fail([error.message]))
  return createService(config, { fetch, now: () => performance.now(), log, version, runtime })
}

async function serve(config: Config): Promise<void> {
  const { write, flush } = inBatches(console.log)
  process.on('exit', flush)
  const log = createLog(config, write)
  const service = await start(config, log)
  const { tlsCertFile, tlsKeyFile } = config
  const renew = async (pair: Pair) => {
    ;(await listening).renew(pair)
    service.certified(pair.expires)
  }
  let tls: Pair | undefined
  try {
    if (tlsCertFile) tls = followPair(tlsCertFile, tlsKeyFile, renew, log)
  } catch (error) {
    fail([(error as Error).message])
  }
  if (tls) service.certified(tls.expires)
  const listening = listen(service.handle, config, tls).catch((error: Error) => {
    fail([`cannot listen on ${config.host}:${config.port}: ${error.message}`])
  })
  const server = await listening
  warnAbout(config, log)
  service.examine()
  const { port } = server
  const name = config.aggregate.origin
  log('info', 'listening', { host: config.host, port, pid: process.pid, runtime, version, name })

  let since: number | undefined
  const stop = (signal: string) => {
    // npm passes a signal on that its whole group has got too, so a second one within a second is the same.
    if (since !== undefined) return performance.now() - since < 1000 ? undefined : cut('stopped at once')
    since = performance.now()
    log('info', 'draining', { signal, seconds: config.drainTimeout })
    const timer = setTimeout(cut, config.drainTimeout * 1000, 'drain timeout')
    server.stop()
    service
      .drain(() => delivered(port))
      .then(() => clearTimeout(timer))
      .then(hangUp)
  }
  /** All is sent. Ends the connections, then the process. */
  const hangUp = async () => {
    server.end()
    const leftMs = config.drainTimeout * 1000 - (performance.now() - (since as number))
    const connections = await closed(port, Math.min(leftMs, hangUpMs))
    if (connections === 0) exit('info', 'drained')
    exit('warn', 'ended before all clients had closed their connections', { connections })
  }
  const cut = (message: string) => {
    server.cut()
    exit('error', message)
  }
  const exit = (level: Level, message: string, fields?: LogFields): never => {
    log(level, message, fields)
    process.exit(level === 'error' ? 1 : 0)
  }
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stop(signal))
  // A fault in one request must not end the transfers of all others.
  process.on('unhandledRejection', (reason) => log('error', 'unhandled rejection', { cause: String(reason) }))
}

/** Warns of settings that are allowed, but are hardly meant. */
function warnAbout(config: Config, log: Log): void {
  const { aggregate, lookupOrder, hostedNames, proxyNames, htpasswdFile, pushUsers } = config
  for (const upstream of ['proxy', 'hosted'] as const) {
    if (config[upstream].host === aggregate.host) log('warn', "a registry's address is this router's own", { upstream })
  }
  if (lookupOrder === 'proxy-first' && hostedNames.source === '(?!)' && proxyNames.source === '^(?:.*)$') {
    const remedy = 'list your own in HOSTED_NAMES, or the public ones in PROXY_NAMES'
    log('warn', `any name of the public registry shadows the same name in hosted: ${remedy}`)
  }
  const forwarders = Object.values(forwardersIn(process.env) ?? {}).filter((one) => one !== undefined)
  if (forwarders.length > 0) {
    const through = [...new Set(forwarders.map((one) => new URL(one).host))].join()
    const except = process.env.no_proxy ?? process.env.NO_PROXY
    log('info', 'public registries are asked through a forward proxy', { through, except })
  }
  const users = pushUsers.length > 0 ? readUsers(htpasswdFile) : new Map()
  for (const user of pushUsers.filter((one) => !users.has(one))) {
    log('warn', 'PUSH_USERS names somebody who is not in HTPASSWD_FILE', { user })
  }
}

/** For a container's health check: the image holds no other HTTP client. */
function healthcheck({ port, host, tlsCertFile }: Pick<Config, 'port' | 'host' | 'tlsCertFile'>): void {
  const address = ['0.0.0.0', '::'].includes(host) ? '127.0.0.1' : host
  // Any certificate will do, as for a kubelet's probe: nothing secret is sent, and no authority signs for 127.0.0.1.
  const request = { host: address, port, path: '/livez', rejectUnauthorized: false }
  const ended = (tlsCertFile ? https : http).get(request, ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1))
  ended.on('error', () => process.exit(1))
}

async function explain(config: Config, image: string): Promise<never> {
  const service = await start(config, createLog({ logFormat: 'text', logLevel: 'warn' }, console.error))
  const explanation = await service.explain(image)
  if ('refused' in explanation) fail([`${image}: ${explanation.message}`])
  console.log(toText(explanation))
  process.exit(0)
}

/** Prints the faults, one line each, and ends the process with 1. */
function fail(faults: readonly string[]): never {
  for (const fault of faults) console.error(`combined-registry: ${fault}`)
  process.exit(1)
}

const [command, ...rest] = process.argv.slice(2)
const known = [undefined, '--help', '--version', '--healthcheck', 'explain']
const wanted = command === 'explain' ? 1 : 0
if (command === 'explain' && rest.length === 0) fail(['explain wants an IMAGE: see --help'])
if (rest.length !== wanted || !known.includes(command))
  fail([`unknown argument ${rest[wanted] ?? command}: see --help`])
if (command === '--help') console.log(help)
else if (command === '--version') console.log(version)
else {
  const config = readConfig(process.env)
  // A file may have become faulty since the router started; that does not make the running router unhealthy.
  if (command === '--healthcheck') healthcheck('faults' in config ? config.values : config)
  else if ('faults' in config) fail(config.faults)
  else if (command === 'explain') await explain(config, rest[0] as string)
  else await serve(config)
}
