/** What layers weigh while they pass: the memory of the process, over http and https. WAY selects the runtime. */
import assert from 'node:assert/strict'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { after, before, test } from 'node:test'
import { between, closeAll } from './parts/between.ts'
import { temporaryFolder } from './parts/children.ts'
import { answerOf, digestOf, open, zeros } from './parts/client.ts'
import { way } from './parts/router.ts'
import { schemes, type Tls, tlsIn } from './parts/schemes.ts'
import { answer, type Script } from './parts/scripted.ts'
import { still } from './parts/until.ts'

const mebibyte = 1024 * 1024
/** Bytes of each of two layers. */
const bytes = (Number(process.env.BIG_MIB ?? 256) / 2) * mebibyte
const framings = ['sized', 'chunked'] as const
const lengthOf = (framing: string) => (framing === 'sized' ? { 'Content-Length': bytes } : {})

let tls: Tls
before(async () => {
  tls = await tlsIn(temporaryFolder())
})
after(closeAll)

/** Reads a stream as a slow reader: of the first chunks one at a time, and each only when its sender is held back. */
async function slowly(stream: Readable, taken: () => number): Promise<number> {
  let [bytes, chunks] = [0, 0]
  for await (const chunk of stream) {
    bytes += chunk.length
    if (chunks++ < 5) await still(taken)
  }
  return bytes
}

for (const scheme of schemes) {
  const start = (hosted: Script) => between(answer(404), hosted, {}, scheme === 'https' ? tls : undefined)
  const layers = `two layers of ${bytes / mebibyte} MiB, one sized and one chunked,`

  test(`${scheme}: ${layers} go up into a registry that reads slowly: memory stays`, async (t) => {
    const senders = new Map(framings.map((framing) => [`/v2/${framing}/blobs/uploads/1`, zeros(bytes)]))
    const { url, router, close } = await start(async (request, response) => {
      const taken = senders.get(request.url ?? '')?.taken ?? (() => 0)
      response.writeHead(202, { 'X-Bytes': await slowly(request, taken) }).end()
    })
    const send = async (framing: string) => {
      const target = `/v2/${framing}/blobs/uploads/1`
      const request = open(url, 'PATCH', target, lengthOf(framing))
      const answered = answerOf(request)
      await pipeline(senders.get(target)?.stream as Readable, request)
      const { statusCode, headers } = await answered
      assert.deepEqual([statusCode, headers['x-bytes']], [202, `${bytes}`])
    }
    await Promise.all(framings.map(send))
    const peak = router.peakMemory() ?? 0
    t.diagnostic(`${way}: peak memory ${peak} MiB`)
    assert.ok(peak < 250, `peak memory ${peak} MiB`)
    await close()
  })

  test(`${scheme}: ${layers} come down to clients that read slowly: memory stays`, async (t) => {
    const senders = new Map(framings.map((framing) => [`/v2/${framing}/blobs/${digestOf('x')}`, zeros(bytes)]))
    const { url, router, close } = await start((request, response) => {
      const framing = request.url?.includes('/sized/') ? 'sized' : 'chunked'
      response.writeHead(200, lengthOf(framing))
      pipeline(senders.get(request.url ?? '')?.stream as Readable, response).catch(() => {})
    })
    const pull = async (target: string) => {
      const request = open(url, 'GET', target)
      request.end()
      const got = await slowly(await answerOf(request), senders.get(target)?.taken as () => number)
      assert.equal(got, bytes)
    }
    await Promise.all([...senders.keys()].map(pull))
    const peak = router.peakMemory() ?? 0
    t.diagnostic(`${way}: peak memory ${peak} MiB`)
    assert.ok(peak < 250, `peak memory ${peak} MiB`)
    await close()
  })
}
