/** The image and the compose stack on a Docker engine: a public image is pulled, a private one pushed and pulled. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { parse } from 'yaml'
import manifest from '../package.json' with { type: 'json' }
import { atEnd, run, temporaryFolder } from './parts/children.ts'
import { answerOf, digestOfStream, noise, open, pushBlob, send, throttled } from './parts/client.ts'
import { composeCommand } from './parts/docker.ts'
import { freePort } from './parts/registries.ts'
import { root } from './parts/router.ts'
import { until } from './parts/until.ts'

const compose = await composeCommand(console.error)
/** An image of the registry behind the stack's cache: Docker Hub, unless PROXY_REMOTEURL names another. */
const publicImage = process.env.PUBLIC_IMAGE ?? 'library/hello-world:latest'
const ownImage = 'team/app:latest'

if (compose) {
  const project = `combined-registry-test-${process.pid}`
  const docker = (...args: string[]) => run(['docker', ...args])
  let command: string[]
  const stack = (...args: string[]) => run([...command, ...args])
  let host: string
  let router: string
  /** The status of `/v2/` just after `up` has returned; 0 for no answer. */
  let atOnce: number

  before(async () => {
    const port = await freePort()
    host = `127.0.0.1:${port}`
    // The real compose.yaml, except what could collide with another stack: the port and the image's tag.
    const file = parse(readFileSync(join(root, 'compose.yaml'), 'utf8'), { merge: true })
    Object.assign(file.services.router, { image: project, ports: [`${host}:5000`] })
    const path = join(temporaryFolder(), 'compose.json')
    writeFileSync(path, JSON.stringify(file))
    command = [...compose, '--project-directory', root, '-p', project, '-f', path]
    const remove = [...command, 'down', '--volumes', '--rmi', 'local', '--timeout', '5'].join(' ')
    atEnd(`${remove}; docker rmi -f ${project} ${host}/${publicImage} ${host}/${ownImage}`)
    await stack('build', 'router')
    await stack('up', '--detach')
    atOnce = await send(`http://${host}`, 'GET', '/v2/').then(
      ({ status }) => status,
      () => 0,
    )
    router = await stack('ps', '--quiet', 'router')
  })
  after(() => stack('down', '--volumes', '--timeout', '5'))

  test('the image is small, runs as an unprivileged user, prints its version, and contains the licences', async () => {
    const [size, user] = (await docker('image', 'inspect', '--format', '{{.Size}} {{.Config.User}}', project)).split(
      ' ',
    )
    assert.ok(Number(size) < 200e6, `${size} bytes`)
    assert.equal(user, '65532:65532')
    assert.equal(await docker('run', '--rm', '--read-only', project, '--version'), manifest.version)
    const container = await docker('create', project)
    const files = await run(['sh', '-c', `docker export ${container} | tar -t`])
    await docker('rm', container)
    const ofOurs = files.split('\n').filter((file) => /^(licenses\/.|combined|sbom)/.test(file))
    const wanted = ['combined-registry', 'licenses/LICENSE', 'licenses/THIRD-PARTY-LICENSES', 'sbom.cdx.json']
    assert.deepEqual(ofOurs.sort(), wanted)
  })

  test('the stack serves as soon as `up` returns, and its health checks succeed', async () => {
    assert.equal(atOnce, 200)
    const health = (id: string) => docker('inspect', '--format', '{{.State.Health.Status}}', id)
    assert.equal(await health(router), 'healthy')
    const proxy = await stack('ps', '--quiet', 'proxy')
    await until('the proxy to be healthy', async () => (await health(proxy)) === 'healthy')
    assert.deepEqual((await send(`http://${host}`, 'GET', '/healthcheck')).json(), { proxy: 200, hosted: 200 })
  })

  test('a public image is pulled through the router; a private one is pushed, and pulled back', async () => {
    await docker('pull', `${host}/${publicImage}`)
    await docker('tag', `${host}/${publicImage}`, `${host}/${ownImage}`)
    await docker('push', `${host}/${ownImage}`)
    const id = await docker('image', 'inspect', '--format', '{{.Id}}', `${host}/${ownImage}`)
    await docker('rmi', `${host}/${publicImage}`, `${host}/${ownImage}`)
    await docker('pull', `${host}/${ownImage}`)
    assert.equal(await docker('image', 'inspect', '--format', '{{.Id}}', `${host}/${ownImage}`), id)
    const explained = (image: string) => stack('exec', '-T', 'router', '/combined-registry', 'explain', image)
    assert.match(await explained(publicImage), /answer +200 from proxy/)
    assert.match(await explained(ownImage), /answer +200 from hosted/)
  })

  test('the registries log no health checks, and their logs are rotated', async () => {
    for (const name of ['hosted', 'proxy']) {
      const id = await stack('ps', '--quiet', name)
      const log = await docker('logs', id)
      assert.doesNotMatch(log, /level=(debug|info)|"GET \/v2\//)
      const { Type, Config } = JSON.parse(await docker('inspect', '--format', '{{json .HostConfig.LogConfig}}', id))
      assert.deepEqual([Type, Config], ['json-file', { 'max-size': '2m', 'max-file': '2' }])
    }
  })

  test('a router with other settings takes the place of the running one, though hosted is not healthy', async () => {
    await stack('pause', 'hosted')
    await stack('unpause', 'hosted')
    await run([...command, 'up', '--detach', 'router'], { env: { HOSTED_NAMES: 'team/**,acme/**' } })
    const old = router
    router = await stack('ps', '--quiet', 'router')
    assert.notEqual(router, old)
    await until('the router to serve', () =>
      send(`http://${host}`, 'GET', '/livez').then(
        ({ status }) => status === 200,
        () => false,
      ),
    )
  })

  test('the router drains when it is stopped: a slow client gets all of a layer through the published port; exit code 0', async () => {
    const url = `http://${host}`
    const bytes = 64 * 1024 * 1024
    const digest = await digestOfStream(noise(bytes, 3))
    assert.equal((await pushBlob(url, 'team/slow', digest, noise(bytes, 3))).status, 201)
    const reply = await answerOf(open(url, 'GET', `/v2/team/slow/blobs/${digest}`).end())
    const stopped = stack('stop', 'router')
    assert.equal(await digestOfStream(Readable.from(throttled(reply, 4))), digest)
    await stopped
    assert.equal(await docker('inspect', '--format', '{{.State.ExitCode}}', router), '0')
    assert.match(await docker('logs', router), /"message":"drained"/)
  })
}
