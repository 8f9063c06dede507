/** What this machine may run out of, whatever the registries do: then no registry has failed. */
import { closeSync, openSync, readSync } from 'node:fs'
import { devNull } from 'node:os'
import { isDeno } from './runtime.ts'

/**
 * - `files`: file descriptors, of this process or of the machine.
 * - `ports`: ports, or addresses of this machine, to connect from.
 * - `memory`: memory, the kernel's too.
 * - `connections`: client connections, so that descriptors are left for registries.
 */
export type Resource = 'files' | 'ports' | 'memory' | 'connections'

/** Nobody was asked, since this machine ran out of something. The message is for the log. */
export class Shortage extends Error {
  readonly resource: Resource

  constructor(resource: Resource, message: string) {
    super(message)
    this.resource = resource
  }
}

/** By error code, as the kernel has them (man 2 connect, man 2 socket). */
const resources: Readonly<Record<string, Resource>> = {
  EMFILE: 'files',
  ENFILE: 'files',
  EADDRNOTAVAIL: 'ports',
  ENOBUFS: 'memory',
  ENOMEM: 'memory',
}

interface Failed {
  code?: string
  syscall?: string
  message?: string
  errors?: Failed[]
}

/** The same error of a connection that could not be opened; a `Shortage` if that is not the registry's failure. */
export function shortageOr(error: Error): Error {
  const { errors = [error] } = error as Failed
  const short = errors.map((one) => resources[codeOf(one)])
  // Of several addresses one may not suit this machine. What another one says is the registry's.
  const resource = short.every(Boolean) ? short[0] : openFault()
  return resource ? new Shortage(resource, (errors[0] as Failed).message ?? resource) : error
}

/** Deno (2.9.5) says EINVAL if no port is free. */
function codeOf({ code = '', syscall }: Failed): string {
  return isDeno && code === 'EINVAL' && syscall === 'connect' ? 'EADDRNOTAVAIL' : code
}

/**
 * Whether no file can be opened now. Without a descriptor Bun (1.4.5) says ECONNREFUSED, or ESERVFAIL if it looks up a name, and Deno
 * (2.9.5) then says ENOTFOUND: only to try tells.
 */
function openFault(): Resource | undefined {
  try {
    closeSync(openSync(devNull, 'r'))
    return undefined
  } catch (error) {
    return resources[(error as Failed).code ?? '']
  }
}

/** How long a limit that was read holds: an operator may change it while the process runs. */
const limitMs = 1000
let limit = { until: Number.NEGATIVE_INFINITY, files: Number.POSITIVE_INFINITY }

/** How many files this process may open; `Infinity` if the kernel does not say (not Linux). */
export function maxFiles(now = performance.now()): number {
  if (now >= limit.until) limit = { until: now + limitMs, files: readLimit() }
  return limit.files
}

/** It stays open: when no file can be opened any more, the limit must still be known. */
let limits: number | undefined

function readLimit(): number {
  try {
    limits ??= openSync('/proc/self/limits', 'r')
    const bytes = Buffer.alloc(4096)
    const text = bytes.toString('latin1', 0, readSync(limits, bytes, 0, bytes.length, 0))
    const [, soft] = /^Max open files +(\d+)/m.exec(text) ?? []
    return Number(soft ?? Number.POSITIVE_INFINITY)
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

/** For all that is no connection: the program itself, its log, files that are read anew. */
const [minOwn, maxOwn] = [48, 128]

/** How many connections clients may have, of so many files, and how many this process may have to registries. */
export function sharesOf(files: number): { clients: number; registries: number } {
  const own = Math.min(maxOwn, Math.max(minOwn, Math.ceil(files / 4)))
  const clients = Math.max(1, Math.floor((files - own) / 3))
  // A request may wait for two registries. A connection that closes is counted no more, but may take its descriptor a while longer.
  return { clients, registries: 2 * clients + Math.floor(own / 4) }
}
