/**
 * Starts real registries, one process each: CNCF distribution (as hosted or as a pull-through cache), olareg
 * (as hosted, with the referrers API), and any other by its command.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { noPrivateName, noSecret } from './canary.ts'
import type { Certificate } from './certificates.ts'
import { atEnd, type Child, run, start } from './children.ts'
import { program } from './packages.ts'
import { until } from './until.ts'

export interface RegistryOptions {
  name: string
  /** The folder for its data; not used if it runs in a container. */
  folder: string
  /** The URL of the registry it caches; without it, it is no cache. */
  proxyOf?: string
  /** The `auth` section of its configuration (distribution, "Configuring a registry"). */
  auth?: object
  /** Makes it serve https. */
  certificate?: Certificate
}

export interface Registry {
  name: string
  /** `http://127.0.0.1:PORT` or `https://127.0.0.1:PORT`. It stays the same after a restart. */
  url: string
  host: string
  /** The lines of its log since its last start. */
  lines: () => string[]
  stop: (signal?: NodeJS.Signals) => Promise<void>
  /** Starts it again; kills it first if it still runs. */
  start: () => Promise<void>
}

/** What the containers are made from. */
const image = 'registry:3'

export type Launch = (options: RegistryOptions) => Promise<Registry>

/**
 * Finds a way to start registries: from a program, found or installed, or else in containers.
 * Throws if neither is possible.
 */
export async function findRegistry(say: (line: string) => void): Promise<Launch> {
  const binary = await program(['docker-registry', 'registry'], 'docker-registry', say)
  if (binary) {
    say(`registries run from the program ${await run([binary, '--version'])}`)
    return fromProgram(binary)
  }
  const wanted = 'put `registry` or `docker-registry` on the PATH, or run this as root on Debian or Ubuntu'
  const engine = await run(['docker', 'version', '--format', '{{.Server.Version}}']).catch(() => undefined)
  if (!engine) throw new Error(`no registry to run: ${wanted}, or start a Docker engine`)
  say(`registries run in containers of ${image}, on the Docker engine ${engine}`)
  const trial = start(['docker', 'run', '--rm', image, '--version'])
  if ((await trial.ended) !== 0)
    throw new Error(
      `no registry to run: a container of ${image} cannot start: ${trial.lines.join(' ').trim()}. Or ${wanted}`,
    )
  return inContainers()
}

/** Starts registries from a program of CNCF distribution. */
export function fromProgram(binary: string): Launch {
  return async ({ name, folder, proxyOf, auth, certificate }) => {
    const root = join(folder, name)
    mkdirSync(root, { recursive: true })
    const scheme = certificate ? 'https' : 'http'
    const launch = async (port = '0') => {
      const config = join(folder, `${name}.yml`)
      writeFileSync(config, configuration({ root, address: `127.0.0.1:${port}`, proxyOf, auth, certificate }))
      const onLine = (line: string) => {
        noSecret('the log of a registry', line)
        if (proxyOf) noPrivateName('the log of a cache', line)
      }
      const child = start([binary, 'serve', config], { env: registryEnvironment(), onLine })
      return { child, port: (await child.line(/listening on [^\s"]*:(\d+)/))[1] as string }
    }
    return asRegistry(name, launch, scheme)
  }
}

/** How a program is started that serves a registry on the port it is given. */
export interface Started {
  command: string[]
  env?: Record<string, string | undefined>
}

/** Starts registries from a program that does not print the port it chose, so we choose one. */
export function onPort(startWith: (options: RegistryOptions, port: string) => Started | Promise<Started>): Launch {
  return (options) =>
    asRegistry(options.name, async (previousPort) => {
      const port = previousPort ?? `${await freePort()}`
      const { command, env } = await startWith(options, port)
      const child = start(command, { env, onLine: (line) => noSecret('the log of a registry', line) })
      await until(`${options.name} to answer`, () => {
        if (child.exited()) throw new Error(`${command.join(' ')} ended:\n${child.lines.join('\n')}`)
        return fetch(`http://127.0.0.1:${port}/v2/`).catch(() => undefined)
      })
      return { child, port }
    })
}

/** Starts registries from the olareg program of `goTools()`. Its data is in memory only. */
export function fromOlareg(olareg: string): Launch {
  return onPort(({ proxyOf, auth }, port) => {
    if (proxyOf || auth) throw new Error('olareg is no cache, and has no logins')
    const deletes = ['--api-delete', '--api-blob-delete']
    return { command: [olareg, 'serve', '--addr', '127.0.0.1', '--port', port, '--store-type', 'mem', ...deletes] }
  })
}

/** `launch` starts the program; for a restart it gets the previous port. */
async function asRegistry(
  name: string,
  launch: (port?: string) => Promise<{ child: Child; port: string }>,
  scheme = 'http',
): Promise<Registry> {
  let running = await launch()
  const host = `127.0.0.1:${running.port}`
  return {
    name,
    url: `${scheme}://${host}`,
    host,
    lines: () => running.child.lines,
    stop: async (signal = 'SIGKILL') => {
      await running.child.stop(signal)
    },
    start: async () => {
      await running.child.stop('SIGKILL')
      running = await launch(running.port)
    },
  }
}

/** Unsets the caller's `REGISTRY_…` variables, which would change our registries. Turns off tracing (version 3). */
function registryEnvironment(): Record<string, string | undefined> {
  const inherited = Object.keys(process.env).filter((key) => key.startsWith('REGISTRY_'))
  return { ...Object.fromEntries(inherited.map((key) => [key, undefined])), OTEL_TRACES_EXPORTER: 'none' }
}

function configuration({
  root,
  address,
  proxyOf,
  auth,
  certificate,
}: Pick<RegistryOptions, 'proxyOf' | 'auth' | 'certificate'> & { root: string; address: string }): string {
  const tls = certificate && { certificate: certificate.certFile, key: certificate.keyFile }
  // The program reads YAML, and JSON is valid YAML.
  return JSON.stringify({
    version: 0.1,
    log: { level: 'info', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: root }, delete: { enabled: true } },
    http: { addr: address, ...(tls ? { tls } : {}) },
    ...(proxyOf ? { proxy: { remoteurl: proxyOf } } : {}),
    ...(auth ? { auth } : {}),
  })
}

/** Starts registries in containers. They share a network, so a cache finds its remote by name. */
function inContainers(): Launch {
  const network = `combined-registry-${randomBytes(4).toString('hex')}`
  let networkCreated: Promise<unknown> | undefined
  const insideUrls = new Map<string, string>()
  return async ({ name, proxyOf, auth, certificate }) => {
    if (auth || certificate)
      throw new Error('a container with logins or a certificate is not started here: install docker-registry')
    networkCreated ??= run(['docker', 'network', 'create', network])
    await networkCreated
    const container = `${network}-${name}`
    const remote = proxyOf && (insideUrls.get(proxyOf) ?? proxyOf)
    const options = ['--rm', '--name', container, '--network', network, '-p', '127.0.0.1::5000']
    const settings = ['REGISTRY_STORAGE_DELETE_ENABLED=true', ...(remote ? [`REGISTRY_PROXY_REMOTEURL=${remote}`] : [])]
    const env = settings.flatMap((setting) => ['-e', setting])
    atEnd(`docker rm -fv ${container}; docker network rm ${network}`)
    const child = start(['docker', 'run', ...options, ...env, image])
    const ports = await until(`the container ${name}`, () => {
      if (child.exited()) throw new Error(`a container of ${image} cannot start: ${child.lines.join(' ')}`)
      return run(['docker', 'port', container, '5000']).catch(() => '')
    })
    const host = (ports.split('\n')[0] as string).trim()
    const url = `http://${host}`
    insideUrls.set(url, `http://${container}:5000`)
    await until(`${name} to answer`, () => fetch(`${url}/v2/`).catch(() => undefined))
    return {
      name,
      url,
      host,
      lines: () => child.lines,
      stop: async () => {
        await run(['docker', 'rm', '-fv', container]).catch(() => {})
        await child.ended
      },
      start: () => Promise.reject(new Error('a container is not started again')),
    }
  }
}

/** A TCP port of 127.0.0.1 that is free now. */
export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo
      server.close(() => resolve(port))
    })
  })
}
