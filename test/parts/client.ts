/** A small registry client for tests: raw requests, generated images, whole pulls and pushes. */
import { createCipheriv, createHash } from 'node:crypto'
import http from 'node:http'
import https from 'node:https'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { gzipSync } from 'node:zlib'
import { noSecret } from './canary.ts'

export interface Reply {
  status: number
  headers: http.IncomingHttpHeaders
  body: Buffer
  // biome-ignore lint/suspicious/noExplicitAny: the tests read arbitrary JSON.
  json: () => any
}

export interface RequestOptions {
  headers?: http.OutgoingHttpHeaders
  /** A stream is sent chunked, unless `headers` has a Content-Length. */
  body?: Buffer | string | Readable
}

/** The number of requests sent so far. */
export const opened = { count: 0 }

/** The certificate authority (PEM) to trust for https, in place of the default ones. */
export const trusted: { ca?: string } = {}

/** Opens a request. The target is sent exactly as written: it is not parsed, normalised or escaped. */
export function open(base: string, method: string, target: string, headers: http.OutgoingHttpHeaders = {}) {
  opened.count++
  const { protocol, hostname, port } = new URL(base)
  const options = { hostname, port, method, path: target, headers }
  return protocol === 'https:' ? https.request({ ...options, ...trusted }) : http.request(options)
}

/** Sends a request and reads the whole response. Throws if an error response holds the test password. */
export async function send(
  base: string,
  method: string,
  target: string,
  { headers, body }: RequestOptions = {},
): Promise<Reply> {
  const request = open(base, method, target, headers)
  const answered = answerOf(request)
  if (body instanceof Readable) await Promise.race([pipeline(body, request), answered])
  else request.end(body)
  const answer = await answered
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(chunk)
  const whole = Buffer.concat(chunks)
  if ((answer.statusCode ?? 0) >= 400) noSecret('an error', `${JSON.stringify(answer.headers)} ${whole}`)
  return {
    status: answer.statusCode as number,
    headers: answer.headers,
    body: whole,
    json: () => JSON.parse(whole.toString()),
  }
}

/** Waits for the status and the header fields of the response; the body is still to be read. */
export function answerOf(request: http.ClientRequest): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.once('response', resolve)
    request.on('error', reject)
  })
}

/** Reads a body of any size and gives its digest, without keeping it in memory. Rejects if the body is cut short. */
export async function download(
  base: string,
  target: string,
): Promise<{ status: number; digest: string; bytes: number }> {
  const request = open(base, 'GET', target)
  request.end()
  const answer = await answerOf(request)
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of answer) {
    bytes += chunk.length
    hash.update(chunk)
  }
  return { status: answer.statusCode as number, digest: `sha256:${hash.digest('hex')}`, bytes }
}

export function digestOf(content: Buffer | string): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`
}

/** A stream of incompressible bytes, always the same for the same seed. */
export function noise(bytes: number, seed: number): Readable {
  const zeros = Buffer.alloc(1024 * 1024)
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, seed), Buffer.alloc(16))
  let remaining = bytes
  return new Readable({
    read() {
      const size = Math.min(remaining, zeros.length)
      remaining -= size
      this.push(size === 0 ? null : cipher.update(zeros.subarray(0, size)))
    },
  })
}

/** A stream of zeros, and how many were taken from it so far. */
export function zeros(bytes: number): { stream: Readable; taken: () => number } {
  const chunk = Buffer.alloc(65_536)
  let taken = 0
  const stream = new Readable({
    read() {
      const size = Math.min(chunk.length, bytes - taken)
      taken += size
      this.push(size === 0 ? null : chunk.subarray(0, size))
    },
  })
  return { stream, taken: () => taken }
}

/** The same stream, but every chunk after the first waits for `silence`. */
export async function* heldAfterFirst(stream: Readable, silence: Promise<void>): AsyncGenerator<Buffer> {
  for await (const chunk of stream) {
    yield chunk
    await silence
  }
}

/** The same stream, read slowly: with a pause after each chunk. */
export async function* throttled(stream: Readable, pauseMs: number): AsyncGenerator<Buffer> {
  for await (const chunk of stream) {
    yield chunk
    await new Promise((resolve) => setTimeout(resolve, pauseMs))
  }
}

export async function digestOfStream(stream: Readable): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of stream) hash.update(chunk)
  return `sha256:${hash.digest('hex')}`
}

export interface Blob {
  digest: string
  content: Buffer
}
export interface Image {
  manifest: string
  digest: string
  mediaType: string
  blobs: Blob[]
}

const types = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
}
/** The Accept header field of a current client. */
export const accept = [types.index, types.manifest, 'application/vnd.docker.distribution.manifest.v2+json'].join(', ')

/** An image any client can unpack, with one layer for each file. Not compressed: big files are noise anyway. */
export function makeImage(files: Record<string, string | Buffer>, architecture = 'amd64'): Image {
  const tars = Object.entries(files).map(([name, content]) => tar(name, Buffer.from(content as string)))
  const layers = tars.map((content) => blob(gzipSync(content, { level: 0 })))
  const config = blob(
    Buffer.from(
      JSON.stringify({ architecture, os: 'linux', rootfs: { type: 'layers', diff_ids: tars.map(digestOf) } }),
    ),
  )
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: types.manifest,
    config: descriptor(types.config, config),
    layers: layers.map((layer) => descriptor(types.layer, layer)),
  })
  return { manifest, digest: digestOf(manifest), mediaType: types.manifest, blobs: [config, ...layers] }
}

/** An image index. The keys of `images` are the architectures. */
export function makeIndex(images: Record<string, Image>): Image {
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: types.index,
    manifests: Object.entries(images).map(([architecture, { manifest, mediaType }]) => ({
      ...descriptor(mediaType, blob(Buffer.from(manifest))),
      platform: { architecture, os: 'linux' },
    })),
  })
  return { manifest, digest: digestOf(manifest), mediaType: types.index, blobs: [] }
}

/** A referrer of an image, as cosign and ORAS attach it (OCI image-spec 1.1, "Guidelines for Artifact Usage"). */
export function makeReferrer(subject: Image, artifactType: string, content: string): Image {
  const empty = blob(Buffer.from('{}'))
  const payload = blob(Buffer.from(content))
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: types.manifest,
    artifactType,
    config: descriptor('application/vnd.oci.empty.v1+json', empty),
    layers: [descriptor(artifactType, payload)],
    subject: descriptor(subject.mediaType, blob(Buffer.from(subject.manifest))),
  })
  return { manifest, digest: digestOf(manifest), mediaType: types.manifest, blobs: [empty, payload] }
}

/** Pushes an image as docker does: HEAD of each blob, upload of the missing ones, manifest. Throws on failure. */
export async function push(base: string, name: string, reference: string, image: Image): Promise<Reply> {
  for (const { digest, content } of image.blobs) {
    if ((await send(base, 'HEAD', `/v2/${name}/blobs/${digest}`)).status === 200) continue
    await expect(201, pushBlob(base, name, digest, Readable.from([content])))
  }
  const headers = { 'Content-Type': image.mediaType }
  return expect(201, send(base, 'PUT', `/v2/${name}/manifests/${reference}`, { headers, body: image.manifest }))
}

/** Pushes a blob: opens an upload session, sends one chunked PATCH and an empty PUT. Gives the response to the PUT. */
export async function pushBlob(base: string, name: string, digest: string, body: Readable): Promise<Reply> {
  const session = await expect(202, send(base, 'POST', `/v2/${name}/blobs/uploads/`))
  const headers = { 'Content-Type': 'application/octet-stream' }
  const sent = await expect(202, send(base, 'PATCH', pathOf(session), { headers, body }))
  return send(base, 'PUT', withDigest(pathOf(sent), digest))
}

/** The path of the upload session in Location. The host is dropped: the tests send to the server they asked. */
export function pathOf({ headers: { location = '' } }: Reply): string {
  return location.replace(/^https?:\/\/[^/]+/, '')
}

export function withDigest(path: string, digest: string): string {
  return `${path}${path.includes('?') ? '&' : '?'}digest=${digest}`
}

/**
 * Pulls an image with all its blobs and gives the manifest's digest. Throws if a digest or a size is wrong.
 * Of an index it pulls at most `maxPlatforms` manifests.
 */
export async function pull(base: string, name: string, reference: string, maxPlatforms = Infinity): Promise<string> {
  const { body } = await expect(
    200,
    send(base, 'GET', `/v2/${name}/manifests/${reference}`, { headers: { Accept: accept } }),
  )
  const { config, layers = [], manifests = [] } = JSON.parse(body.toString())
  for (const { digest } of manifests.slice(0, maxPlatforms)) await pull(base, name, digest)
  for (const { digest, size } of config ? [config, ...layers] : []) {
    const got = await download(base, `/v2/${name}/blobs/${digest}`)
    if (got.digest !== digest || got.bytes !== size)
      throw new Error(`${digest} came as ${got.digest}, ${got.bytes} bytes`)
  }
  const digest = digestOf(body)
  if (reference.startsWith('sha256:') && digest !== reference) throw new Error(`${reference} came as ${digest}`)
  return digest
}

async function expect(status: number, replied: Promise<Reply>): Promise<Reply> {
  const reply = await replied
  if (reply.status !== status)
    throw new Error(`${reply.status} instead of ${status}: ${reply.body.toString().slice(0, 500)}`)
  return reply
}

function blob(content: Buffer): Blob {
  return { digest: digestOf(content), content }
}

function descriptor(mediaType: string, { digest, content }: Blob) {
  return { mediaType, digest, size: content.length }
}

/** A tar archive of one file (POSIX ustar: a header of 512 bytes, the content, zero padding). */
export function tar(name: string, content: Buffer): Buffer {
  const size = content.length
  const octal = (value: number, width: number) => `${value.toString(8).padStart(width - 1, '0')}\0`
  const head = Buffer.alloc(512)
  const fields: [number, string][] = [
    [0, name],
    [100, octal(0o644, 8)],
    [108, octal(0, 8)],
    [116, octal(0, 8)],
    [124, octal(size, 12)],
    [136, octal(0, 12)],
    [148, ' '.repeat(8)],
    [156, '0'],
    [257, 'ustar\0'],
    [263, '00'],
  ]
  for (const [offset, text] of fields) head.write(text, offset)
  head.write(
    `${octal(
      head.reduce((sum, byte) => sum + byte, 0),
      7,
    )} `,
    148,
  )
  const padding = Buffer.alloc((512 - (size % 512)) % 512)
  return Buffer.concat([head, content, padding, Buffer.alloc(1024)])
}
