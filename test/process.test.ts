/** The program as a process: how it starts, serves, drains and ends. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { delivered } from '../src/runtime/delivered.ts'
import { balance } from './parts/balancer.ts'
import { between, closeAll } from './parts/between.ts'
import { adopt, type Child, run, start, temporaryFolder } from './parts/children.ts'
import * as client from './parts/client.ts'
import { noise, pathOf, send } from './parts/client.ts'
import { newLoad, pullOnce, pushOnce } from './parts/load.ts'
import { publish } from './parts/portproxy.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { type Router, root, startRouter, way, ways } from './parts/router.ts'
import { answer, type Script, scripted } from './parts/scripted.ts'
import { until } from './parts/until.ts'

const mebibyte = 1024 * 1024

let hosted: Registry
/** A registry without images. */
let lacking: Registry
let router: Router

before(async () => {
  const folder = temporaryFolder()
  const launch = await findRegistry((line) => console.error(line))
  hosted = await launch({ name: 'hosted', folder })
  lacking = await launch({ name: 'lacking', folder })
  router = await another()
})
after(async () => {
  await closeAll()
  await router?.stop()
  for (const registry of [hosted, lacking]) await registry?.stop()
})

const another = () => startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: lacking.host })

test('400 requests wait upstream at the same time', async () => {
  const waiting: (() => void)[] = []
  const late = '{"schemaVersion":2,"name":"late"}'
  const { url, close } = await between(answer(404), (_, response) => {
    waiting.push(() => response.end(late))
    if (waiting.length === 400) for (const release of waiting) release()
  })
  const replies = Array.from({ length: 400 }, (_, i) => send(url, 'GET', `/v2/a/manifests/${i}`))
  for (const { body } of await Promise.all(replies)) assert.equal(body.toString(), late)
  await close()
})

test('an upload in HTTP chunks of 8 KiB, as clients and reverse proxies send them, is not much slower than in large chunks', async () => {
  const { router, hosted, close } = await between(answer(404), answer(202))
  const bytes = 64 * mebibyte
  const [, port] = router.host.split(':')
  /** Uploads in HTTP chunks of `chunkBytes`; returns the seconds it took. */
  const uploadSeconds = async (chunkBytes: number) => {
    const chunk = Buffer.concat([
      Buffer.from(`${chunkBytes.toString(16)}\r\n`),
      Buffer.alloc(chunkBytes),
      Buffer.from('\r\n'),
    ])
    const batch = Buffer.concat(Array.from({ length: mebibyte / chunkBytes }, () => chunk))
    const socket = connect(Number(port), '127.0.0.1')
    const started = performance.now()
    const answered = once(socket, 'data')
    socket.write('PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n')
    for (let sent = 0; sent < bytes; sent += mebibyte) if (!socket.write(batch)) await once(socket, 'drain')
    socket.write('0\r\n\r\n')
    assert.match(`${await answered}`, /^HTTP\/1.1 202 /)
    socket.destroy()
    assert.equal(hosted.requests.at(-1)?.bytes, bytes)
    return (performance.now() - started) / 1000
  }
  await uploadSeconds(mebibyte)
  const [largeSeconds, smallSeconds] = [await uploadSeconds(mebibyte), await uploadSeconds(8192)]
  // Deno.serve() reads ahead without a limit, and moves all these bytes for each chunk: 20 s instead of 0.2 s.
  assert.ok(smallSeconds < 10 * largeSeconds + 1, `${smallSeconds} s in place of ${largeSeconds}`)
  await close()
})

test('no file descriptors are left: requests in flight complete, and new ones are served once some are free', async () => {
  const { url, router, hosted, now, close } = await between(answer(404), answer(200))
  let release = () => {}
  now.hosted = (_, response) => {
    release = () => response.end('late')
  }
  const begun = send(url, 'GET', '/v2/_catalog')
  await until('hosted to be asked', () => hosted.requests.length === 1)
  const limitFiles = (files: number) => run(['prlimit', `--pid=${router.pid}`, `--nofile=${files}:`])
  await limitFiles(1)
  const idle = Array.from({ length: 100 }, () => connect(Number(router.host.split(':')[1]), '127.0.0.1'))
  for (const socket of idle) socket.on('error', () => {})
  release()
  assert.equal((await begun).body.toString(), 'late')
  await limitFiles(1000)
  for (const socket of idle) socket.destroy()
  const freed = performance.now()
  const onNewConnection = () =>
    fetch(`${url}/livez`, { signal: AbortSignal.timeout(1000) }).then(
      ({ ok }) => ok,
      () => false,
    )
  await until('an answer', onNewConnection)
  // Deno has to be woken.
  assert.ok(performance.now() - freed < 3000)
  await close()
})

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} during a pull and a push: both complete, nothing new is accepted, exit code 0`, async () => {
    const bytes = 32 * mebibyte
    const digest = await client.digestOfStream(noise(bytes, 5))
    await client.pushBlob(hosted.url, 'team/drain', digest, noise(bytes, 5))
    const draining = await another()
    const pulling = client.open(draining.url, 'GET', `/v2/team/drain/blobs/${digest}`)
    pulling.end()
    const reply = await client.answerOf(pulling)
    await new Promise((resolve) => reply.once('readable', resolve))
    const opened = await send(draining.url, 'POST', '/v2/team/drained/blobs/uploads/')
    const pushing = client.open(draining.url, 'PATCH', pathOf(opened), { 'Transfer-Encoding': 'chunked' })
    const pushed = client.answerOf(pushing)
    let goOn = () => {}
    const paused = new Promise<void>((resolve) => {
      goOn = resolve
    })
    const [upload, whole] = [noise(bytes, 8), await client.digestOfStream(noise(bytes, 8))]
    Readable.from(client.heldAfterFirst(upload, paused)).pipe(pushing)
    await until('the upload to begin', async () =>
      /in_flight 3$/m.test((await send(draining.url, 'GET', '/metrics')).body.toString()),
    )
    const ended = draining.stop(signal)
    await draining.child.line(/"message":"draining"/)
    for (const path of ['/livez', '/v2/_catalog']) {
      const request = client.open(draining.url, 'GET', path)
      request.shouldKeepAlive = false
      request.end()
      const late = await client.answerOf(request).then(
        (answer) => answer.resume().statusCode,
        () => 'refused',
      )
      assert.ok(late === 'refused' || late === 503, `${path}: ${late}`)
    }
    assert.equal(draining.child.exited(), false)
    assert.equal(await client.digestOfStream(reply), digest)
    goOn()
    const { statusCode, headers } = (await pushed).resume()
    assert.deepEqual([statusCode, headers.range], [202, `0-${bytes - 1}`])
    assert.equal(await ended, 0)
    const location = pathOf({ headers } as client.Reply)
    assert.equal((await send(hosted.url, 'PUT', client.withDigest(location, whole))).status, 201)
  })
}

test('SIGTERM: the process waits until its client has received everything; in a container, bytes in the kernel would be lost', async () => {
  const bytes = 2 * mebibyte
  const digest = await client.digestOfStream(noise(bytes, 9))
  await client.pushBlob(hosted.url, 'team/slow', digest, noise(bytes, 9))
  const stopped = await another()
  const pulling = client.open(stopped.url, 'GET', `/v2/team/slow/blobs/${digest}`)
  pulling.end()
  // The client does not read yet: the kernel holds all of the bytes, and the router counts them as sent.
  const reply = await client.answerOf(pulling)
  await stopped.child.line(/"message":"request".*"complete":true/)
  const ended = stopped.stop('SIGTERM')
  await stopped.child.line(/"message":"draining"/)
  const tooEarly = await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1000, 'it goes on'))])
  assert.equal(tooEarly, 'it goes on')
  assert.equal(await client.digestOfStream(reply), digest)
  assert.equal(await ended, 0)
})

test('SIGTERM just as the last byte is sent: a slow client still receives all of it', async () => {
  const bytes = 32 * mebibyte
  const digest = await client.digestOfStream(noise(bytes, 10))
  await client.pushBlob(hosted.url, 'team/slower', digest, noise(bytes, 10))
  const stopped = await another()
  const reply = await client.answerOf(client.open(stopped.url, 'GET', `/v2/team/slower/blobs/${digest}`).end())
  const stopping = stopped.child.line(/"message":"request".*"complete":true/).then(() => stopped.stop('SIGTERM'))
  assert.equal(await client.digestOfStream(Readable.from(client.throttled(reply, 2))), digest)
  assert.equal(await stopping, 0)
})

for (const [moment, pattern] of [
  ['while a layer is sent', /"message":"listening"/],
  ['when a layer was sent', /"message":"request".*"complete":true/],
] as const) {
  test(`SIGTERM ${moment}: what a published port still keeps for a slow client is not lost with the process`, async () => {
    const bytes = 32 * mebibyte
    const digest = await client.digestOfStream(noise(bytes, 11))
    await client.pushBlob(hosted.url, 'team/published', digest, noise(bytes, 11))
    const stopped = await another()
    const port = await publish(Number(new URL(stopped.url).port), 16 * 1024)
    const reply = await client.answerOf(
      client.open(`http://${port.host}`, 'GET', `/v2/team/published/blobs/${digest}`).end(),
    )
    await stopped.child.line(pattern)
    const ended = stopped.stop('SIGTERM')
    ended.then(port.end)
    assert.equal(await client.digestOfStream(reply), digest)
    assert.equal(await ended, 0)
    assert.equal(stopped.log().at(-1)?.message, 'drained')
  })
}

test('SIGTERM: a client that leaves its idle connection open is waited for, but not beyond DRAIN_TIMEOUT; this is no failure', async () => {
  const { router, close } = await between(answer(404), answer(200, {}, '{"repositories":[]}'), { DRAIN_TIMEOUT: '1.5' })
  const idle = connect({ port: Number(router.host.split(':')[1]), host: '127.0.0.1', allowHalfOpen: true })
  idle.write('GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n')
  await once(idle, 'data')
  const hungUp = once(idle.resume(), 'end')
  assert.equal(await router.stop(), 0)
  await hungUp
  const [, , last] = router.log().slice(-3)
  assert.deepEqual(
    [last?.level, last?.message, last?.connections],
    ['warn', 'ended before all clients had closed their connections', 1],
  )
  idle.destroy()
  await close(true)
})

test('a rolling restart of two replicas under load: a client that tries again loses nothing', async () => {
  const bytes = 4 * mebibyte
  const stored = { name: 'team/rolling', digest: await client.digestOfStream(noise(bytes, 6)) }
  await client.pushBlob(hosted.url, stored.name, stored.digest, noise(bytes, 6))
  const pushed = { name: 'team/rolled', digest: await client.digestOfStream(noise(bytes, 7)) }
  const replicas = [await another(), await another()]
  const balancer = await balance(() => replicas.map(({ host }) => Number(host.split(':')[1])))
  const load = newLoad()
  let over = false
  const clients = ['pull', 'push'].map(async (what) => {
    while (!over) {
      if (what === 'pull') await pullOnce(load, balancer.url, stored)
      else await pushOnce(load, balancer.url, pushed, bytes, 7)
    }
  })
  for (const i of [0, 1, 0, 1]) {
    const before = load.requests
    await until('some load', () => load.requests > before + 4)
    const old = replicas[i] as Router
    replicas[i] = await another()
    assert.equal(await old.stop(), 0)
  }
  over = true
  await Promise.all(clients)
  balancer.close()
  for (const replica of replicas) await replica.stop()
  assert.deepEqual([load.lost, load.wrong], [[], []])
})

test('SIGTERM: a request that arrives just as the last answer ends is either answered or never accepted', async () => {
  const asked: (() => void)[] = []
  const late: Script = ({ url }, response) => {
    if (!url?.includes('/blobs/')) return setTimeout(() => response.end('second'), 500)
    response.writeHead(200, { 'Content-Length': 5 }).write('fi')
    asked.push(() => response.end('rst'))
  }
  const { router, hosted, close } = await between(answer(404), late, { HOSTED_NAMES: '**' })
  const [host, port] = router.host.split(':')
  let got = ''
  const socket = connect(Number(port), host).on('error', () => {})
  socket.on('data', (data) => {
    got += data
    if (got.endsWith('first')) socket.write('GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n')
  })
  socket.write(`GET /v2/a/blobs/${client.digestOf('x')} HTTP/1.1\r\nHost: x\r\n\r\n`)
  await until('the first bytes', () => got.endsWith('fi'))
  router.child.stop('SIGTERM')
  await router.child.line(/"message":"draining"/)
  asked[0]?.()
  assert.equal(await router.child.ended, 0)
  await until('the end', () => socket.closed)
  // Deno closes the connection before it accepts another request.
  assert.equal(/second/.test(got), hosted.requests.length === 2, got)
  if (hosted.requests.length === 2) assert.match(got, /^connection: close\r$/im)
  await close(true)
})

test('requests in flight longer than DRAIN_TIMEOUT are given up, exit code 1', async () => {
  const { url, router, hosted, close } = await between(answer(404), () => {}, { DRAIN_TIMEOUT: '0.2' })
  const request = client.open(url, 'GET', '/v2/_catalog')
  request.on('error', () => {})
  request.end()
  await until('hosted to be asked', () => hosted.requests.length === 1)
  assert.equal(await router.stop(), 1)
  await close(true)
})

for (const [target, sign] of [
  ['the process only, as a supervisor does', 1],
  ['its whole process group, as a terminal does', -1],
] as const) {
  test(`started as the README says, it drains at a signal to ${target}`, async () => {
    const command = { ...ways, node: ['npm', 'start'], deno: ['deno', 'task', 'start'] }[way]
    let release = () => {}
    const late = await scripted((_, response) => {
      release = () => response.end('late')
    })
    const hosts = { AGGREGATE_HOSTNAME: 'a', HOSTED_HOSTNAME: late.host, PROXY_HOSTNAME: lacking.host }
    const env = { ...hosts, HOST: '127.0.0.1', PORT: '0', PATH: `node_modules/.bin:${process.env.PATH}` }
    // setsid makes a new process group. Its id is the process id.
    const child = start(['setsid', ...command], { cwd: root, env })
    const [, port, pid] = await child.line(/"message":"listening".*"port":(\d+),"pid":(\d+)/)
    adopt(Number(pid))
    const answered = send(`http://127.0.0.1:${port}`, 'GET', '/v2/_catalog')
    await until('hosted to be asked', () => late.requests.length === 1)
    process.kill(sign * child.pid, 'SIGINT')
    await child.line(/"message":"draining"/)
    release()
    assert.equal((await answered).body.toString(), 'late')
    assert.equal(await child.ended, 0)
    await late.close()
  })
}

test('a second signal, a second or more after the first, ends the process at once, exit code 1', async () => {
  const { url, router, hosted, close } = await between(answer(404), () => {})
  const request = client.open(url, 'GET', '/v2/_catalog')
  request.on('error', () => {})
  request.end()
  await until('hosted to be asked', () => hosted.requests.length === 1)
  await until('it to end', () => router.child.exited() || (process.kill(router.pid, 'SIGTERM') && false))
  assert.equal(await router.child.ended, 1)
  assert.deepEqual(
    router
      .log()
      .slice(-2)
      .map(({ message }) => message),
    ['draining', 'stopped at once'],
  )
  await close(true)
})

test('DRAIN_TIMEOUT resets a client that reads slowly: in a container the client would not learn of the end otherwise', {
  timeout: 30_000,
}, async () => {
  const bytes = 64 * mebibyte
  const large: Script = (_, response) => noise(bytes, 5).pipe(response.writeHead(200, { 'Content-Length': bytes }))
  const { router, close } = await between(answer(404), large, { DRAIN_TIMEOUT: '0.2' })
  const pulling = client.open(router.url, 'GET', `/v2/team/slow/blobs/${client.digestOf('x')}`)
  pulling.end()
  const reply = await client.answerOf(pulling)
  assert.equal(await router.stop(), 1)
  // Afterwards the kernel has no more bytes to send to the client.
  await delivered(Number(new URL(router.url).port))
  reply.destroy()
  await close(true)
})

/** Runs the program with these environment variables; returns its exit code and the lines it printed. */
async function runProgram(environment: Record<string, string>, ...args: string[]): Promise<[number | null, string[]]> {
  const child: Child = start([...ways[way], ...args], { cwd: root, env: environment })
  return [await child.ended, child.lines]
}

test('a wrong configuration: exit code 1, one line for each fault, nothing is started', async () => {
  const environment = { AGGREGATE_HOSTNAME: '', HOSTED_HOSTNAME: 'http://a/v2', PROXY_HOSTNAME: 'proxy', PORT: 'x' }
  const [exit, lines] = await runProgram(environment)
  assert.equal(exit, 1)
  assert.deepEqual(
    lines.map((line) => line.split(' ').slice(0, 2).join(' ')),
    ['combined-registry: AGGREGATE_HOSTNAME', 'combined-registry: HOSTED_HOSTNAME', 'combined-registry: PORT'],
  )
})

test('a port in use: exit code 1 and one line', async () => {
  const [, port = ''] = router.host.split(':')
  const hosts = { AGGREGATE_HOSTNAME: 'a', HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: lacking.host }
  const [exit, lines] = await runProgram({ ...hosts, HOST: '127.0.0.1', PORT: port })
  assert.equal(exit, 1)
  assert.deepEqual(
    [lines.length, lines[0]?.startsWith(`combined-registry: cannot listen on 127.0.0.1:${port}: `)],
    [1, true],
  )
})

test('HTTP_PROXY and similar variables are ignored: nothing goes to an address outside the configuration', async () => {
  const stranger = await scripted(answer(503))
  const names = ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY'].flatMap((name) => [name, name.toLowerCase()])
  const proxies = Object.fromEntries(names.map((name) => [name, `http://${stranger.host}`]))
  const { url, router, close } = await between(answer(404), answer(200, {}, '{"schemaVersion":2}'), proxies)
  const headers = { Authorization: 'Basic canary' }
  assert.equal((await send(url, 'GET', '/v2/a/manifests/1', { headers })).status, 200)
  const hosts = { AGGREGATE_HOSTNAME: 'a', HOSTED_HOSTNAME: 'b', PROXY_HOSTNAME: 'c', HOST: '127.0.0.1' }
  const [, PORT = ''] = router.host.split(':')
  assert.equal((await runProgram({ ...hosts, ...proxies, PORT }, '--healthcheck'))[0], 0)
  assert.deepEqual(stranger.requests, [])
  await close()
  await stranger.close()
})

test('no setting comes from an .env file, which may exist for compose', async () => {
  const cwd = temporaryFolder()
  for (const entry of readdirSync(root)) if (entry !== '.env') symlinkSync(join(root, entry), join(cwd, entry))
  writeFileSync(join(cwd, '.env'), 'PORT=none\n')
  const child = start([...ways[way]], { cwd })
  assert.equal(await child.ended, 1)
  const lines = child.lines.join('\n')
  assert.ok(/HOSTED_HOSTNAME is required/.test(lines) && !lines.includes('PORT must'), lines)
})

if (way === 'binary') {
  test('the binary takes no settings and no code from the folder it is started in', async () => {
    const cwd = temporaryFolder()
    writeFileSync(join(cwd, 'bunfig.toml'), 'preload = ["./code.js"]\n')
    writeFileSync(join(cwd, 'code.js'), 'console.log("code")\n')
    writeFileSync(join(cwd, '.env'), 'PORT=none\n')
    const child = start([join(root, ways.binary[0] as string)], { cwd })
    assert.equal(await child.ended, 1)
    assert.ok(
      child.lines.length > 0 && child.lines.every((line) => / is required: /.test(line)),
      child.lines.join('\n'),
    )
  })
}

test('--help, --version and --healthcheck', async () => {
  const [exit, help] = await runProgram({}, '--help')
  assert.equal(exit, 0)
  assert.match(help.join('\n'), /HOSTED_HOSTNAME +required/)
  assert.match((await runProgram({}, '--version'))[1].join(), /^\d+\.\d+\.\d+$/)
  const [, port = ''] = router.host.split(':')
  const environment = { AGGREGATE_HOSTNAME: 'a', HOSTED_HOSTNAME: 'b', PROXY_HOSTNAME: 'c', HOST: '127.0.0.1' }
  assert.equal((await runProgram({ ...environment, PORT: port }, '--healthcheck'))[0], 0)
  assert.equal((await runProgram({ ...environment, PORT: '9' }, '--healthcheck'))[0], 1)
  const broken = { HTPASSWD_FILE: '/nowhere', PUSH_USERS: ',' }
  assert.equal((await runProgram({ ...environment, ...broken, PORT: port }, '--healthcheck'))[0], 0)
  assert.equal((await runProgram({}, '--nonsense'))[0], 1)
})
