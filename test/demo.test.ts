/** Runs `npm run demo` as a new user does: with the registries that this machine has, and with node and npm only. */
import assert from 'node:assert/strict'
import { chmodSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import process from 'node:process'
import { test } from 'node:test'
import { run, start, temporaryFolder } from './parts/children.ts'
import { accept, digestOf, type Image, makeReferrer, pull, push, send } from './parts/client.ts'
import { freePort } from './parts/registries.ts'
import { root } from './parts/router.ts'

/** A PATH with what npm and the demo need, and nothing that starts or installs a registry. */
async function barePath(): Promise<string> {
  const folder = temporaryFolder()
  for (const name of ['node', 'npm', 'sh', 'env', 'rm']) {
    symlinkSync(await run(['sh', '-c', `command -v ${name}`]), join(folder, name))
  }
  return folder
}

async function demoOnce(env: Record<string, string>): Promise<string> {
  const child = start(['npm', 'run', 'demo', '--', '--once'], { cwd: root, env })
  assert.equal(await child.ended, 0, child.lines.join('\n'))
  const output = child.lines.join('\n')
  assert.match(output, /pull +library\/\S+ .*proxy/)
  assert.match(output, /pull +quay\.io\/\S+ .*came from quay\.io/)
  assert.match(output, /push +team\/demo.*hosted/)
  assert.match(output, /pull +team\/demo.*hosted/)
  return output
}

test('the demo pulls and pushes once, and ends with exit code 0', async () => {
  assert.doesNotMatch(await demoOnce({}), /NO REAL REGISTRIES/)
})

test('with node and npm only it does the same, and says that the registries are small ones in memory', async () => {
  const output = await demoOnce({ PATH: await barePath() })
  assert.match(output, /no registry to run: put .* on the PATH.*\nNO REAL REGISTRIES: small ones in the memory/)
})

test('the registries in memory are under 200 lines, and the product does not know them', () => {
  assert.ok(readFileSync(join(root, 'demo/registry.ts'), 'utf8').split('\n').length <= 201)
  const ignored = readFileSync(join(root, '.dockerignore'), 'utf8')
  assert.ok(ignored.startsWith('*\n') && !ignored.includes('!demo'))
})

test('an engine that cannot start a container: the demo says why, and goes on', async () => {
  const PATH = await barePath()
  const engine =
    'case $1 in version) echo 28.2.2 ;; *) echo "toomanyrequests: the pull rate limit" >&2; exit 125 ;; esac'
  writeFileSync(join(PATH, 'docker'), `#!/bin/sh\n${engine}\n`)
  chmodSync(join(PATH, 'docker'), 0o755)
  const output = await demoOnce({ PATH })
  assert.match(output, /a container of registry:3 cannot start: toomanyrequests: the pull rate limit/)
})

test('a port in use is reported, and the next free one is used', async () => {
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  const { port } = taken.address() as { port: number }
  assert.match(await demoOnce({ PORT: `${port}` }), new RegExp(`port ${port} is taken`))
  taken.close()
})

test('a visitor is told the page first, and who answered each request; Ctrl-C ends it with a goodbye and exit code 0', async () => {
  const env = { PATH: await barePath(), PORT: `${await freePort()}` }
  const child = start(['npm', 'run', 'demo'], { cwd: root, env, ownGroup: true })
  await child.line(/Each request that comes/)
  const [first = ''] = child.lines.filter((line) => line && !line.startsWith('>'))
  const router = `http://127.0.0.1:${env.PORT}`
  assert.ok(first.startsWith(`${router}/ is the page`), first)

  const page = await send(router, 'GET', '/', { headers: { Accept: 'text/html' } })
  assert.match(page.body.toString(), /<html/)
  await child.line(/GET +\/ +200 +the router itself/)

  await pull(router, 'library/hello', 'latest')
  await child.line(/GET +\/v2\/library\/hello\/manifests\/latest +200 +proxy/)
  const { body } = await send(router, 'GET', '/v2/library/hello/manifests/latest', { headers: { Accept: accept } })
  const { mediaType, config, layers } = JSON.parse(`${body}`)
  for (const { digest } of [config, ...layers]) {
    const mount = `/v2/team/mine/blobs/uploads/?mount=${digest}&from=library/hello`
    assert.equal((await send(router, 'POST', mount)).status, 201)
  }
  const image: Image = { manifest: `${body}`, digest: digestOf(body), mediaType, blobs: [] }
  await push(router, 'team/mine', '1.0', image)
  await child.line(/PUT +\/v2\/team\/mine\/manifests\/1.0 +201 +hosted/)
  assert.equal(await pull(router, 'team/mine', '1.0'), image.digest)
  assert.deepEqual((await send(router, 'GET', '/v2/team/mine/tags/list')).json().tags, ['1.0'])
  const signature = makeReferrer(image, 'application/vnd.example.signature', 'signed')
  await push(router, 'team/mine', signature.digest, signature)
  const { manifests } = (await send(router, 'GET', `/v2/team/mine/referrers/${image.digest}`)).json()
  assert.deepEqual([manifests.length, manifests[0].digest], [1, signature.digest])
  assert.equal((await send(router, 'GET', '/v2/team/other/manifests/1.0')).status, 404)

  process.kill(-child.pid, 'SIGINT')
  assert.equal(await child.ended, 0, child.lines.slice(-5).join('\n'))
  assert.match(child.lines.join('\n'), /Goodbye: /)
})
