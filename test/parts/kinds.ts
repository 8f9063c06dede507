/** The registries that `test/registries.ts` runs: how to get each, how it is started, and what to set for it. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { onPath, run, start } from './children.ts'
import { account } from './dialects.ts'
import { cranePackage, distribution3, goInstall, goTools, pinned } from './go.ts'
import { findRegistry, fromOlareg, fromProgram, type Launch, onPort, type RegistryOptions } from './registries.ts'

export interface Program {
  version: string
  launch: Launch
}

export interface Kind {
  /** Gets the program into `folder`, or gives the reason why that is not possible. Says what takes time. */
  get: (folder: string, say: (line: string) => void) => Promise<Program | string>
  /** It runs as a cache too. */
  isCache?: true
  hasLogin?: true
  /** It takes no push without a login. */
  wantsLogin?: true
  /** What names begin with, in place of `team`. */
  owner?: string
  /** What the router must be given for it as hosted, besides its address, and as the cache. */
  settings?: Record<string, string>
  cacheSettings?: Record<string, string>
  /** Settings of the conformance suite. */
  suite?: Record<string, string>
}

/** Digests in header fields are required by the next spec version only. Without these settings the suite would skip the remaining checks. */
const withoutDigests = { OCI_API_BLOBS_DIGEST_HEADER: 'false', OCI_API_MANIFESTS_DIGEST_HEADER: 'false' }
const olaregModule = 'github.com/olareg/olareg'
const nora = { package: 'nora-registry', version: '1.4.3' }
const gitea = { module: 'code.gitea.io/gitea', version: '1.26.0' }
const zot = 'put `zot` on the PATH: it is not in the Go module proxy'

export const kinds: Record<string, Kind> = {
  'CNCF distribution 2.8': {
    isCache: true,
    hasLogin: true,
    get: async (_folder, say) => {
      let version = ''
      const launch = await findRegistry((line) => {
        version = /\d+\.\d+\.\d+/.exec(line)?.[0] ?? line
        say(line)
      })
      return { launch, version }
    },
  },
  'CNCF distribution 3': {
    isCache: true,
    hasLogin: true,
    get: async (folder, say) => {
      const program = await distribution3(folder, say)
      return program ? { launch: fromProgram(program), version: await versionOf([program, '--version']) } : 'no program'
    },
  },
  olareg: {
    suite: withoutDigests,
    get: async (_folder, say) => {
      const tools = await goTools(say)
      return tools ? { launch: fromOlareg(tools.olareg), version: pinned(olaregModule).slice(1) } : 'no program'
    },
  },
  'go-containerregistry': {
    settings: { HOSTED_NAMES: 'team/**' },
    suite: withoutDigests,
    get: async (folder, say) => {
      say(`building with go install: ${cranePackage}`)
      const launch = onPort((_options, port) => {
        return { command: [join(folder, 'crane'), 'registry', 'serve', '--address', `127.0.0.1:${port}`] }
      })
      return (await goInstall(cranePackage, folder)) ?? { launch, version: cranePackage.replace(/.*@v/, '') }
    },
  },
  NORA: { isCache: true, hasLogin: true, get: getNora },
  Gitea: {
    hasLogin: true,
    wantsLogin: true,
    owner: account.username,
    settings: { HOSTED_NAMES: `${account.username}/**` },
    get: getGitea,
  },
  zot: {
    isCache: true,
    hasLogin: true,
    settings: { HOSTED_NAMES: 'team/**' },
    cacheSettings: { PROXY_TIMEOUT: '60' },
    get: async () => {
      if (!(await onPath('zot'))) return zot
      return { launch: onPort(startZot), version: await versionOf(['zot', '--version']) }
    },
  },
}

const versionOf = async (command: string[]) => /\d+\.\d+\.\d+/.exec(await run(command))?.[0] ?? ''

function folderOf({ folder, name }: RegistryOptions): string {
  const root = join(folder, name)
  mkdirSync(root, { recursive: true })
  return root
}

/** The users of `auth: { htpasswd: { path } }`. */
const usersOf = ({ auth }: RegistryOptions) => (auth as { htpasswd?: { path: string } } | undefined)?.htpasswd?.path

async function getNora(folder: string, say: (line: string) => void): Promise<Program | string> {
  let program = 'nora'
  if (!(await onPath(program))) {
    if (!(await onPath('cargo'))) return 'there is no `cargo` on the PATH'
    const what = [nora.package, '--version', nora.version]
    say(`building with cargo install, which takes its time: ${what.join(' ')}`)
    const built = start(['cargo', 'install', '-j', '1', ...what, '--root', folder])
    if ((await built.ended) !== 0) return built.lines.at(-1) ?? 'cargo install failed'
    program = join(folder, 'bin/nora')
  }
  const launch = onPort((options, port) => {
    const root = folderOf(options)
    const env = {
      NORA_HOST: '127.0.0.1',
      NORA_PORT: port,
      NORA_PUBLIC_URL: `http://127.0.0.1:${port}`,
      NORA_STORAGE_MODE: 'local',
      NORA_STORAGE_PATH: root,
      NORA_RATE_LIMIT_ENABLED: 'false',
      NORA_AUTH_ENABLED: `${usersOf(options) !== undefined}`,
      NORA_AUTH_HTPASSWD_FILE: usersOf(options),
      NORA_AUTH_TOKEN_STORAGE: join(root, 'tokens'),
      NORA_DOCKER_PROXIES: options.proxyOf ?? '',
    }
    return { command: ['sh', '-c', `cd ${root} && exec ${program} serve`], env }
  })
  return { launch, version: await versionOf([program, '--version']) }
}

async function getGitea(folder: string, say: (line: string) => void): Promise<Program | string> {
  let program = 'gitea'
  let assets = process.env.GITEA_ASSETS
  if (!(await onPath(program))) {
    if (!process.env.BUILD_GITEA)
      return 'put `gitea` on the PATH, or set BUILD_GITEA=1: its build takes half an hour or more'
    if (!(await onPath('go'))) return 'there is no `go` on the PATH'
    say(`building with go build, which takes its time: ${gitea.module} ${gitea.version}`)
    program = join(folder, 'gitea')
    const source = join(folder, 'gitea-source')
    assets = source
    const build = `dir=$(go mod download -json ${gitea.module}@v${gitea.version} | sed -n 's/.*"Dir": "\\(.*\\)",/\\1/p')
      cp -r "$dir" ${source} && chmod -R u+w ${source} && cd ${source}
      CGO_ENABLED=1 go build -tags 'sqlite sqlite_unlock_notify' -o ${program} .`
    const env = { GOFLAGS: '-p=1 -buildvcs=false' }
    const built = start(['sh', '-ec', build], { env })
    if ((await built.ended) !== 0) return built.lines.at(-1) ?? 'go build failed'
  }
  return { launch: onPort((options, port) => startGitea(program, assets, options, port)), version: gitea.version }
}

/** `assets`: the folder of its source, if the program was built without them. It does not run as root, so it then runs as nobody. It has one user, who owns what is pushed. */
async function startGitea(program: string, assets: string | undefined, options: RegistryOptions, port: string) {
  const root = folderOf(options)
  const isRoot = process.getuid?.() === 0
  const config = join(root, 'app.ini')
  const isNew = !existsSync(config)
  const ini = [
    `RUN_USER = ${isRoot ? 'nobody' : process.env.USER}`,
    `WORK_PATH = ${root}`,
    `[server]\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = ${port}\nROOT_URL = http://127.0.0.1:${port}/`,
    `DISABLE_SSH = true\nOFFLINE_MODE = true`,
    // What go build makes holds none of them.
    assets ? `STATIC_ROOT_PATH = ${assets}` : '',
    `[database]\nDB_TYPE = sqlite3\nPATH = ${root}/gitea.db`,
    '[security]\nINSTALL_LOCK = true\nPASSWORD_HASH_ALGO = pbkdf2$1$1',
    '[log]\nLEVEL = Warn\nMODE = console',
  ]
  writeFileSync(config, `${ini.join('\n')}\n`)
  if (isRoot) await run(['chmod', '711', options.folder])
  if (isRoot) await run(['chown', '-R', 'nobody', root])
  const asUser = isRoot ? ['setpriv', '--reuid=nobody', '--clear-groups', '--'] : []
  const env = { HOME: root, USER: isRoot ? 'nobody' : process.env.USER }
  const { username, password } = account
  const user = [
    '--username',
    username,
    '--password',
    password,
    '--email',
    'a@example.org',
    '--must-change-password=false',
  ]
  const command = [...asUser, program, '--config', config]
  if (isNew) await run([...command, 'migrate'], { env })
  if (isNew) await run([...command, 'admin', 'user', 'create', ...user], { env })
  return { command: [...command, 'web'], env }
}

function startZot(options: RegistryOptions, port: string) {
  const root = folderOf(options)
  const config = join(options.folder, `${options.name}.json`)
  const path = usersOf(options)
  const sync = { urls: [options.proxyOf], onDemand: true, tlsVerify: false, content: [{ prefix: '**' }] }
  const settings = {
    storage: { rootDirectory: root },
    http: { address: '127.0.0.1', port, compat: ['docker2s2'], ...(path ? { auth: { htpasswd: { path } } } : {}) },
    log: { level: 'error' },
    ...(options.proxyOf ? { extensions: { sync: { enable: true, registries: [sync] } } } : {}),
  }
  writeFileSync(config, JSON.stringify(settings))
  return { command: ['zot', 'serve', config] }
}

/** The settings as the manual shows them. */
export const shown = (settings: Record<string, string> = {}) =>
  Object.entries(settings)
    .map(([name, value]) => `\`${name}=${value}\``)
    .join(', ')

/** A file of one user, for registries and for the router. */
export function usersFile(folder: string, hash: string): string {
  const path = join(folder, 'users')
  writeFileSync(path, `${account.username}:${hash}\n`)
  return path
}
