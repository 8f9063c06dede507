/** The logins in a file such as docker's `config.json`, and which of them a registry gets. */
import type { Log } from '../log.ts'
import { follow, textOf } from '../runtime/files.ts'
import { comparable } from './hosts.ts'
import { json } from './json.ts'
import type { LoginSource } from './source.ts'

/** One entry of `auths`, and the registries that it is for. */
export interface AuthEntry {
  /** As the file has it. */
  key: string
  host: string
  /** The path that a registry's own must begin with: `/acme`, or empty. */
  path: string
  username: string
  password: string
  /** Why it holds no login that can be used; or empty. */
  unusable: string
}

export interface AuthFile {
  entries: AuthEntry[]
  /** The docker-credential-helper of a registry, by its host. */
  helpers: { host: string; helper: string }[]
}

/** Reads the file. Throws an Error whose message ends the sentence "FILE …" and holds nothing secret. */
export function readAuthFile(path: string): AuthFile {
  const found = json(Buffer.from(textOf(path))) as Record<string, unknown> | null | undefined
  const { auths, credHelpers } = found ?? {}
  if (!isRecord(auths ?? credHelpers)) throw new Error('must be JSON with "auths", as docker login writes it')
  const entries = Object.entries(auths ?? {}).map(([key, value]) => entryOf(key, value))
  const twice = entries.find((one, at) => entries.findIndex((other) => isSame(one, other)) < at)
  if (twice) throw new Error(`must name each registry once, not ${twice.host}${twice.path} twice`)
  return { entries, helpers: Object.entries(credHelpers ?? {}).map(helperOf) }
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

function helperOf([key, helper]: [string, unknown]): AuthFile['helpers'][number] {
  // It becomes part of a path.
  if (typeof helper !== 'string' || !/^[\w-][\w.-]*$/.test(helper)) throw new Error('must have names in "credHelpers"')
  return { host: placeOf(key).host, helper: `docker-credential-${helper}` }
}

const isSame = (one: AuthEntry, other: AuthEntry) => one.host === other.host && one.path === other.path

function entryOf(key: string, value: unknown): AuthEntry {
  const given = (value ?? {}) as Record<string, unknown>
  const [username, password] = loginIn(given)
  return { key, ...placeOf(key), username, password, unusable: username && password ? '' : whyUnusable(given) }
}

/** Which registries a key means. docker keeps Docker Hub's login under `https://index.docker.io/v1/`. */
function placeOf(key: string): Pick<AuthEntry, 'host' | 'path'> {
  const [, host = '', path = ''] = /^(?:https?:\/\/)?([^/]*)(.*)$/.exec(key) ?? []
  return { host: comparable(host), path: path.replace(/^\/v[12]\/?$|\/$/, '') }
}

function whyUnusable(given: Record<string, unknown>): string {
  if (given.identitytoken) return 'has an identity token, which this router cannot use'
  return 'has no user and password: if the file names a credsStore, docker keeps them there'
}

/** `auth` is `USER:PASSWORD` in base64; podman and Kubernetes also take both by themselves. */
function loginIn({ auth, username, password }: Record<string, unknown>): [username: string, password: string] {
  if (typeof username === 'string' && typeof password === 'string') return [username, password]
  const decoded = typeof auth === 'string' ? Buffer.from(auth, 'base64').toString() : ''
  const at = decoded.indexOf(':')
  // Docker ends some with a NUL.
  return at > 0 ? [decoded.slice(0, at), decoded.slice(at + 1).replace(/\0+$/, '')] : ['', '']
}

/**
 * The entry for the registry at an address: the one with the longest path, then the one with the fewest `*`. A `*` stands for one
 * label of a host name, or a part of one (Kubernetes, "Interpretation of config.json").
 */
export function entryFor(entries: readonly AuthEntry[], { host, pathname }: URL): AuthEntry | undefined {
  const wanted = comparable(host)
  const path = pathname.replace(/\/$/, '')
  const rank = (one: AuthEntry) => one.path.length * 1000 - one.host.split('*').length
  return entries
    .filter((one) => hasHost(one.host, wanted) && (one.path === '' || `${path}/`.startsWith(`${one.path}/`)))
    .reduce<AuthEntry | undefined>((best, one) => (best && rank(best) >= rank(one) ? best : one), undefined)
}

/** The docker-credential-helper in `folder` for the registry at an address, or empty. */
export function helperFor({ helpers }: Pick<AuthFile, 'helpers'>, { host }: URL, folder: string): string {
  const found = helpers.find((one) => one.host === comparable(host))
  return found ? `${folder}/${found.helper}` : ''
}

function hasHost(pattern: string, host: string): boolean {
  const [labels, wanted] = [pattern.split('.'), host.split('.')]
  return labels.length === wanted.length && labels.every((label, at) => hasLabel(label, wanted[at] as string))
}

/** Without a regular expression: this one is linear, whatever the file holds. */
function hasLabel(pattern: string, label: string): boolean {
  const [begin = '', ...rest] = pattern.split('*')
  const end = rest.pop()
  if (end === undefined) return label === pattern
  if (label.length < begin.length + end.length || !label.startsWith(begin) || !label.endsWith(end)) return false
  let at = begin.length
  for (const part of rest) {
    at = label.indexOf(part, at)
    if (at < 0) return false
    at += part.length
  }
  return at <= label.length - end.length
}

/** The logins of a file for several registries, read again when it changes. */
export class AuthLogins {
  #entries: readonly AuthEntry[]
  readonly #helpers: AuthFile['helpers']
  readonly #folder: string
  readonly #onChange: (() => void)[] = []

  /** `folder`: of the programs that the file may name. Throws as `readAuthFile` does. */
  constructor(path: string, folder: string, log: Log) {
    this.#folder = folder
    const use = ({ entries }: AuthFile) => {
      this.#entries = entries
      for (const changed of this.#onChange) changed()
    }
    const failed = (cause: string) =>
      log('warn', 'AUTH_FILE cannot be read anew, the logins stay as they were', { cause })
    const { entries, helpers } = follow([path], () => readAuthFile(path), use, failed)
    this.#entries = entries
    this.#helpers = helpers
  }

  /** The program that gives the login of the registry at an address, or empty. It stays the one that the file named at the start. */
  helperFor(address: URL): string {
    return helperFor({ helpers: this.#helpers }, address, this.#folder)
  }

  /** Says which entry each registry gets, and which ones nobody gets. */
  tell(registries: readonly { name: string; address: URL }[], log: Log): void {
    const used = registries.map(({ name, address }) => {
      const entry = this.#usable(address)
      if (!entry) return undefined
      log('info', 'logs in as AUTH_FILE says', { upstream: name, entry: entry.key })
      if (address.protocol === 'http:') log('warn', 'a password of AUTH_FILE goes out in clear', { upstream: name })
      return entry
    })
    for (const entry of this.#entries.filter((one) => !used.includes(one)))
      log('warn', 'AUTH_FILE has a login that no registry gets', { entry: entry.key })
  }

  /** The login of the registry at an address. */
  sourceFor(address: URL, log: Log): LoginSource {
    let last: AuthEntry | undefined
    return {
      start: (use) => {
        last = this.#usable(address)
        use(last)
        this.#onChange.push(() => {
          const entry = this.#usable(address)
          if (entry?.username === last?.username && entry?.password === last?.password) return
          last = entry
          use(entry)
          log('info', 'password read anew')
        })
      },
    }
  }

  #usable(address: URL): AuthEntry | undefined {
    const entry = entryFor(this.#entries, address)
    return entry?.unusable === '' ? entry : undefined
  }
}
