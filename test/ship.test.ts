/** Checks that what `npm run build` makes can be shipped: binaries, checksums, npm package, build context. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { cpSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { after, before, test } from 'node:test'
import { hashSync } from 'bcryptjs'
import { parse } from 'yaml'
import manifest from '../package.json' with { type: 'json' }
import { noSecret } from './parts/canary.ts'
import { adopt, run, start, temporaryFolder } from './parts/children.ts'
import { send } from './parts/client.ts'
import { root } from './parts/router.ts'
import { answer, type Scripted, scripted } from './parts/scripted.ts'

const { version } = manifest
const dist = join(root, 'dist')
const tarball = `combined-registry-${version}.tgz`
const licences = 'THIRD-PARTY-LICENSES'
const sbom = 'sbom.cdx.json'
/** ELF machine numbers (`e_machine` in elf.h). */
const machines = { x64: 0x3e, arm64: 0xb7 }
const binary = (architecture: string) => join(dist, `combined-registry-linux-${architecture}`)

let folder: string
let registry: Scripted
before(async () => {
  folder = temporaryFolder()
  registry = await scripted(answer(200, { 'Content-Length': 2 }, '{}'))
  await run(['npm', 'run', '--silent', 'build'], { cwd: root })
})
after(() => registry?.close())

/** Starts the program: it must be live, and name its version in the metrics and to a registry. */
async function assertServes(command: string[], cwd: string): Promise<void> {
  const users = join(folder, 'users')
  writeFileSync(users, `ann:${hashSync('canary', 4)}\n`)
  const env = {
    ...{ AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: registry.host, PROXY_HOSTNAME: registry.host },
    ...{ HOST: '127.0.0.1', PORT: '0', HTPASSWD_FILE: users },
  }
  const child = start(command, { cwd, env })
  const { pid, port } = JSON.parse((await child.line(/"message":"listening"/)).input as string)
  adopt(pid)
  await run([...command, '--healthcheck'], { cwd, env: { ...env, PORT: `${port}` } })
  const url = `http://127.0.0.1:${port}`
  assert.match((await send(url, 'GET', '/metrics')).body.toString(), new RegExp(`build_info{version="${version}",`))
  const headers = { Authorization: `Basic ${btoa('ann:canary')}` }
  assert.equal((await send(url, 'GET', '/v2/', { headers })).status, 200)
  assert.equal(registry.requests.at(-1)?.headers['user-agent'], `combined-registry/${version}`)
  process.kill(pid, 'SIGTERM')
  assert.equal(await child.ended, 0)
}

test('SHA256SUMS has the checksum of every file of the release', () => {
  const sums = readFileSync(join(dist, 'SHA256SUMS'), 'utf8').trimEnd().split('\n')
  const files = [
    ...Object.keys(machines).map((architecture) => `combined-registry-linux-${architecture}`),
    tarball,
    licences,
    sbom,
  ]
  const wanted = files.map((file) => {
    return `${createHash('sha256')
      .update(readFileSync(join(dist, file)))
      .digest('hex')}  ${file}`
  })
  assert.deepEqual(sums, wanted)
})

test('each binary is for its architecture; the one for this machine prints its version and serves', async () => {
  for (const [architecture, machine] of Object.entries(machines)) {
    const head = readFileSync(binary(architecture)).subarray(0, 20)
    assert.deepEqual([head.toString('latin1', 1, 4), head.readUInt16LE(18)], ['ELF', machine], architecture)
  }
  if (process.platform !== 'linux') return console.error('NO LINUX: no binary of this release is run here')
  assert.equal(await run([binary(process.arch), '--version']), version)
  await assertServes([binary(process.arch)], folder)
})

test('the npm package is one program file with the licences of its contents, and needs no other package', async () => {
  const files = (await run(['tar', '-tzf', join(dist, tarball)])).split('\n')
  const wanted = ['LICENSE', 'README.md', licences, 'bcrypt.js', 'bin.js', 'package.json']
  assert.deepEqual(files.toSorted(), wanted.map((file) => `package/${file}`).toSorted())
  noSecret('the npm package', await run(['tar', '-xzOf', join(dist, tarball)]))
  const text = readFileSync(join(dist, licences), 'utf8')
  for (const name of Object.keys(manifest.dependencies))
    assert.equal(text.includes(`${name}\n\n`), name !== 'tsx', name)
  assert.ok(text.includes(`Bun ${manifest.devDependencies.bun} (MIT)`))
})

test('the SBOM has every package that is inside the binaries, and Bun, with its version and package URL', async () => {
  const program = await run(['tar', '-xzOf', join(dist, tarball), 'package/bin.js', 'package/bcrypt.js'])
  const comments = program.matchAll(/^\/\/ .*node_modules\/((?:@[^/\n]+\/)?[^/\n]+)\//gm)
  const bundled = [...new Set([...comments].map(([, name = '']) => name))]
  for (const name of Object.keys(manifest.dependencies)) assert.equal(bundled.includes(name), name !== 'tsx', name)
  const wanted = [...bundled, 'bun'].map((name) => {
    const { version } = JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8'))
    return [name, version, `pkg:npm/${name.replace('@', '%40')}@${version}`]
  })
  const text = readFileSync(join(dist, sbom), 'utf8')
  noSecret('the SBOM', text)
  const { bomFormat, metadata, components, dependencies } = JSON.parse(text)
  assert.deepEqual(
    [bomFormat, metadata.component.name, metadata.component.version, metadata.component.type],
    ['CycloneDX', manifest.name, version, 'application'],
  )
  const listed = components.map(({ name, version, purl }: Record<string, string>) => [name, version, purl])
  assert.deepEqual(listed.sort(), wanted.sort())
  const refs = [metadata.component, ...components].map((one) => one['bom-ref'])
  for (const { ref, dependsOn } of dependencies) {
    for (const one of [ref, ...dependsOn]) assert.ok(refs.includes(one), one)
  }
  const own = dependencies.find(({ ref }: { ref: string }) => ref === metadata.component['bom-ref'])
  assert.ok(own.dependsOn.includes(`hono@${wanted.find(([name]) => name === 'hono')?.[1]}`))
  assert.match(
    readFileSync(join(root, 'Dockerfile'), 'utf8'),
    new RegExp(`^COPY --from=build /build/dist/${sbom} /$`, 'm'),
  )
})

test('the installed npm package prints its version and serves, from any folder', async () => {
  const prefix = join(folder, 'prefix')
  await run(['npm', 'install', '--silent', '--global', '--offline', '--prefix', prefix, join(dist, tarball)])
  const program = join(prefix, 'bin/combined-registry')
  assert.equal(await run([program, '--version'], { cwd: folder }), version)
  await assertServes([program], folder)
})

test("the image's build context is small, and has all that the Dockerfile needs", async () => {
  const context = join(folder, 'context')
  const included = readFileSync(join(root, '.dockerignore'), 'utf8').match(/(?<=^!).+$/gm) ?? []
  for (const entry of included) cpSync(join(root, entry), join(context, entry), { recursive: true })
  const sizes = readdirSync(context, { recursive: true }).map((file) => statSync(join(context, `${file}`)).size)
  const bytes = sizes.reduce((sum, size) => sum + size)
  assert.ok(bytes < 1024 * 1024, `${bytes}`)
  symlinkSync(join(root, 'node_modules'), join(context, 'node_modules'))
  await run(['npm', 'run', '--silent', 'build', '--', process.arch], { cwd: context })
  assert.deepEqual(readdirSync(join(context, 'dist')).sort(), [
    licences,
    `combined-registry-linux-${process.arch}`,
    sbom,
  ])
})

test('the Kubernetes objects name the image of this version', () => {
  const { images } = parse(readFileSync(join(root, 'deploy/kubernetes/kustomization.yaml'), 'utf8'))
  const { router } = parse(readFileSync(join(root, 'compose.yaml'), 'utf8')).services
  assert.deepEqual([images[0].name, images[0].newTag], [router.image, version])
})
