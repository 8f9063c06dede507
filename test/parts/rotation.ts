/** A registry whose password changes all the time, a program that gives the newest one, and a load that must not notice. */
import { chmodSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { hashSync } from 'bcryptjs'
import {
  digestOf,
  digestOfStream,
  makeImage,
  noise,
  pathOf,
  type Reply,
  type RequestOptions,
  send,
  withDigest,
} from './client.ts'
import type { Launch, Registry } from './registries.ts'

export interface Rotating {
  registry: Registry
  /** A docker-credential-helper. */
  command: string
  /** The number of passwords so far. */
  passwords: () => number
  /** How often the command was asked. */
  calls: () => number
  stop: () => Promise<void>
}

/** Starts a registry that has a new password every `everyMs`; each is good until `goodMs` after the next one came. */
export async function startRotating(
  launch: Launch,
  folder: string,
  { everyMs, goodMs }: { everyMs: number; goodMs: number },
): Promise<Rotating> {
  const [users, current, command, log] = ['robots', 'current.json', 'gives', 'gives.log'].map((name) =>
    join(folder, name),
  ) as [string, string, string, string]
  // Nobody reads half a file.
  const write = (file: string, content: string) => {
    writeFileSync(`${file}.new`, content)
    renameSync(`${file}.new`, file)
  }
  write(command, `#!/bin/sh\nread -r host\necho asked >> ${log}\ncat ${current}\n`)
  chmodSync(command, 0o755)
  const good = new Map<string, string>()
  let passwords = 0
  const rotate = () => {
    const last = `robot${passwords}`
    setTimeout(() => good.delete(last), goodMs).unref()
    passwords++
    const [Username, Secret] = [`robot${passwords}`, `canary-${passwords}`]
    good.set(Username, hashSync(Secret, 4))
    // A password is good before anybody has it.
    write(users, [...good].map(([user, hash]) => `${user}:${hash}\n`).join(''))
    write(current, JSON.stringify({ ServerURL: 'x', Username, Secret }))
  }
  rotate()
  const registry = await launch({ name: 'rotating', folder, auth: { htpasswd: { realm: 'rotating', path: users } } })
  const timer = setInterval(rotate, everyMs)
  return {
    registry,
    command,
    passwords: () => passwords,
    calls: () => (existsSync(log) ? readFileSync(log, 'utf8').split('\n').length - 1 : 0),
    stop: () => {
      clearInterval(timer)
      return registry.stop()
    },
  }
}

export interface LoadOptions {
  url: string
  /** The client's own login here. */
  authorization: string
  seconds: number
  pullsPerSecond: number
  layerMiB: number
}

export interface Figures {
  pulls: number
  pushes: number
  /** Milliseconds of pulls. */
  median: number
  p99: number
  max: number
  /** What a request was told, if not what it should be: none is tried again. */
  failures: string[]
}

const name = 'team/pulled'
const image = makeImage({ 'a.bin': 'a'.repeat(65_536) })
const mebibyte = 1024 * 1024

/** Pulls at a steady rate, whatever the answers take, while a layer a second is pushed. */
export async function underLoad(options: LoadOptions): Promise<Figures> {
  const { seconds, pullsPerSecond, layerMiB } = options
  await pushImage(options)
  const digests = await Promise.all([1, 2, 3].map((seed) => digestOfStream(noise(layerMiB * mebibyte, seed))))
  const failures: string[] = []
  const began = performance.now()
  const failed = ({ message }: Error) => failures.push(`after ${Math.round(performance.now() - began)} ms: ${message}`)

  const times: number[] = []
  const pulling = new Set<Promise<unknown>>()
  const pullOnce = () => {
    const from = performance.now()
    const one: Promise<unknown> = pull(options)
      .then(() => times.push(performance.now() - from), failed)
      .finally(() => pulling.delete(one))
    pulling.add(one)
  }
  let started = 0
  // A timer that is late starts what it missed.
  const timer = setInterval(() => {
    for (; started < ((performance.now() - began) / 1000) * pullsPerSecond; started++) pullOnce()
  }, 10)

  let pushes = 0
  for (let i = 0; performance.now() - began < seconds * 1000; i++) {
    const next = new Promise((resolve) => setTimeout(resolve, 1000))
    const seed = 1 + (i % digests.length)
    const body = noise(layerMiB * mebibyte, seed)
    await upload(options, `team/pushed${seed}`, digests[seed - 1] as string, body).then(() => pushes++, failed)
    await next
  }
  clearInterval(timer)
  await Promise.all(pulling)
  times.sort((a, b) => a - b)
  const at = (part: number) => Math.round(times[Math.floor((times.length - 1) * part)] ?? 0)
  return { pulls: times.length, pushes, median: at(0.5), p99: at(0.99), max: at(1), failures }
}

type Target = Pick<LoadOptions, 'url' | 'authorization'>

/** Sends a request once. Rejects if the status is not `wanted`. */
async function ask(
  { url, authorization }: Target,
  wanted: number,
  method: string,
  target: string,
  { headers, ...options }: RequestOptions = {},
): Promise<Reply> {
  const reply = await send(url, method, target, { ...options, headers: { Authorization: authorization, ...headers } })
  if (reply.status !== wanted) throw new Error(`${method} ${target}: ${reply.status} ${reply.body}`.slice(0, 300))
  return reply
}

async function pull(at: Target): Promise<void> {
  const headers = { Accept: image.mediaType }
  const manifest = await ask(at, 200, 'GET', `/v2/${name}/manifests/v1`, { headers })
  if (digestOf(manifest.body) !== image.digest) throw new Error('a manifest with the wrong bytes')
  const { digest } = image.blobs[1] as (typeof image.blobs)[0]
  const layer = await ask(at, 200, 'GET', `/v2/${name}/blobs/${digest}`)
  if (digestOf(layer.body) !== digest) throw new Error('a layer with the wrong bytes')
}

async function upload(at: Target, name: string, digest: string, body: Readable): Promise<void> {
  const session = await ask(at, 202, 'POST', `/v2/${name}/blobs/uploads/`)
  const patched = await ask(at, 202, 'PATCH', pathOf(session), { body })
  await ask(at, 201, 'PUT', withDigest(pathOf(patched), digest))
}

async function pushImage(at: Target): Promise<void> {
  for (const { digest, content } of image.blobs) await upload(at, name, digest, Readable.from([content]))
  const headers = { 'Content-Type': image.mediaType }
  await ask(at, 201, 'PUT', `/v2/${name}/manifests/v1`, { headers, body: image.manifest })
}
