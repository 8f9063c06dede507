/** The program: environment -> configuration -> service -> runtime. */
import http from 'node:http'
import https from 'node:https'
import process from 'node:process'
import manifest from './package.json' with { type: 'json' }
import { type Command, commandIn } from './src/arguments.ts'
import { check, checkFaults } from './src/check/check.ts'
import { type Effect, effectOf, hintsIn } from './src/check/effect.ts'
import { exitCodeOf, toJson, toPage } from './src/check/report.ts'
import { judgeSettings } from './src/check/settings.ts'
import { askOnce, saySettings } from './src/check/start.ts'
import { subjectOf } from './src/check/subject.ts'
import { type Config, configHelp, readConfig, settings } from './src/config.ts'
import { createLog, inBatches, type Level, type Log, type LogFields } from './src/log.ts'
import { createUncounted } from './src/registries.ts'
import { signed } from './src/registry/headers.ts'
import { toText } from './src/relay/explain.ts'
import { closed, delivered } from './src/runtime/delivered.ts'
import { createFetch, forwardersIn } from './src/runtime/fetch.ts'
import { listen } from './src/runtime/listen.ts'
import { type Fetch, runtime } from './src/runtime/runtime.ts'
import { followPair, type Pair, rootsWith } from './src/runtime/tls.ts'
import { createService, type Dependencies } from './src/service.ts'

const { version } = manifest
const help = `combined-registry ${version}: one address for a private registry and a pull-through cache

  help, --help, -h   this text
  version, --version the version
  explain IMAGE      why an image comes from where it comes: the rule, what each registry says now, who wins
  check              what would not work: the settings, and each registry; exit 0 if all is well, 1 if not, 2 with warnings
    --push NAME      also open an upload for this name in hosted, and cancel it; else check only reads
    --json           print what check finds as JSON
  --healthcheck      exit 0 if the router on PORT of this machine is live, 1 if not

Everything else comes from the environment:

${configHelp()}`

/** Milliseconds for clients to close their side, once all is sent. */
const hangUpMs = 30_000

const now = () => performance.now()

function fetchFor(config: Config) {
  // Later than the deadline of any read, since that one says more.
  const connectMs = Math.max(config.hostedTimeout, config.proxyTimeout) * 1000 + 1000
  return createFetch(rootsWith(config.caFile), connectMs).catch((error: Error) => fail([error.message]))
}

const start = (config: Config, fetch: Fetch, log: Log, atStart?: Dependencies['atStart']) =>
  createService(config, { fetch, now, log, version, runtime, atStart })

async function serve(config: Config): Promise<void> {
  const { write, flush } = inBatches(console.log)
  process.on('exit', flush)
  const log = createLog(config, write)
  const fetch = await fetchFor(config)
  const effect = effectOf(settings, process.env)
  const found = judgeSettings(config, effect.misspelt)
  const service = start(config, fetch, log, { settings: effect.settings, warnings: found })
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
  const listening = listen(service.handle, { ...config, onFull: service.full }, tls).catch((error: Error) => {
    fail([`cannot listen on ${config.host}:${config.port}: ${error.message}`])
  })
  const server = await listening
  saySettings(effect, found, log)
  sayForwarders(log)
  service.examine()
  const { port } = server
  const name = config.aggregate.origin
  log('info', 'listening', { host: config.host, port, pid: process.pid, runtime, version, name })
  askRegistries(config, signed(fetch, version), log)

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

function sayForwarders(log: Log): void {
  const forwarders = Object.values(forwardersIn(process.env) ?? {}).filter((one) => one !== undefined)
  if (forwarders.length === 0) return
  const through = [...new Set(forwarders.map((one) => new URL(one).host))].join()
  const except = process.env.no_proxy ?? process.env.NO_PROXY
  log('info', 'public registries are asked through a forward proxy', { through, except })
}

/** Asks each registry once, in the background. */
async function askRegistries(config: Config, fetch: Fetch, log: Log): Promise<void> {
  const subjects = createUncounted(config, fetch, now, false).map((one) => subjectOf(one, config.aggregate.host))
  await askOnce(subjects, { fetch, passLogin: config.passLogin }, log)
}

async function printCheck(config: ReturnType<typeof readConfig>, { push, json }: Command & { name: 'check' }) {
  const effect = effectOf(settings, process.env)
  const report = { version, settings: effect.settings, ...(await checked(config, effect, push)) }
  console.log(json ? toJson(report) : toPage(report))
  process.exit(exitCodeOf(report.findings))
}

async function checked(config: ReturnType<typeof readConfig>, effect: Effect, push: string | undefined) {
  if ('faults' in config) return checkFaults(config.faults, effect)
  const fetch = signed(await fetchFor(config), version)
  return check({
    settings: config,
    effect,
    push,
    fetch,
    registriesOf: (some) => createUncounted(some, fetch, now, true),
  })
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
  const log = createLog({ logFormat: 'text', logLevel: 'warn' }, console.error)
  const service = start(config, await fetchFor(config), log)
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

const command = commandIn(process.argv.slice(2))
if ('fault' in command) fail([command.fault])
if (command.name === 'help') console.log(help)
else if (command.name === 'version') console.log(version)
else {
  const config = readConfig(process.env)
  // A file may have become faulty since the router started; that does not make the running router unhealthy.
  if (command.name === 'healthcheck') healthcheck('faults' in config ? config.values : config)
  else if (command.name === 'check') await printCheck(config, command)
  else if ('faults' in config) fail([...config.faults, ...hintsIn(effectOf(settings, process.env))])
  else if (command.name === 'explain') await explain(config, command.image)
  else await serve(config)
}
