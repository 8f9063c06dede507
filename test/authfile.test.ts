/** AUTH_FILE: what is read of docker's `config.json`, and which login a registry gets. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { entryFor, readAuthFile } from '../src/registry/authfile.ts'

const folder = mkdtempSync(join(tmpdir(), 'authfile-'))
after(() => rmSync(folder, { recursive: true }))
const file = join(folder, 'config.json')
const read = (content: unknown) => {
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content))
  return readAuthFile(file)
}
const auth = (text: string) => ({ auth: Buffer.from(text).toString('base64') })
const userAt = (auths: Record<string, unknown>, address: string) =>
  entryFor(read({ auths }).entries, new URL(address))?.username

test('a login is USER:PASSWORD in base64, or both by themselves; a password may have colons', () => {
  const { entries } = read({
    auths: { 'a.io': auth('ann:canary:1'), 'b.io': { username: 'bob', password: 'canary-2' }, 'c.io': auth('c:d\0\0') },
  })
  assert.deepEqual(
    entries.map(({ host, username, password }) => [host, username, password]),
    [
      ['a.io', 'ann', 'canary:1'],
      ['b.io', 'bob', 'canary-2'],
      ['c.io', 'c', 'd'],
    ],
  )
})

/** the keys of the file, the address of the registry, the key that counts */
const rows: [string[], string, string | undefined][] = [
  [['https://index.docker.io/v1/'], 'https://registry-1.docker.io', 'https://index.docker.io/v1/'],
  [['docker.io'], 'https://registry-1.docker.io', 'docker.io'],
  [['ghcr.io'], 'https://ghcr.io', 'ghcr.io'],
  [['GHCR.io:443'], 'https://ghcr.io', 'GHCR.io:443'],
  [['https://ghcr.io/v2/'], 'https://ghcr.io', 'https://ghcr.io/v2/'],
  [['ghcr.io'], 'http://cache:5000', undefined],
  [['cache:5000'], 'http://cache:5000', 'cache:5000'],
  [['cache'], 'http://cache:5000', undefined],
  [['ghcr.io/acme'], 'https://ghcr.io', undefined],
  [['ghcr.io/acme', 'ghcr.io'], 'https://ghcr.io/acme', 'ghcr.io/acme'],
  [['ghcr.io/acme', 'ghcr.io'], 'https://ghcr.io/acmex', 'ghcr.io'],
  [['ghcr.io', 'ghcr.io/acme/app'], 'https://ghcr.io/acme', 'ghcr.io'],
  [['*.dkr.ecr.eu.amazonaws.com'], 'https://1.dkr.ecr.eu.amazonaws.com', '*.dkr.ecr.eu.amazonaws.com'],
  [['*.io'], 'https://a.b.io', undefined],
  [['*.*.io'], 'https://a.b.io', '*.*.io'],
  [['*.b.io', 'a.b.io'], 'https://a.b.io', 'a.b.io'],
  [['pre*fix.io'], 'https://pre-and-fix.io', 'pre*fix.io'],
  [['pre*fix.io'], 'https://prefi.io', undefined],
  [['a*b*a.io'], 'https://aba.io', 'a*b*a.io'],
  [['a*b*a.io'], 'https://aa.io', undefined],
]
for (const [keys, address, wanted] of rows) {
  test(`${keys.join(', ')}: ${address} gets the login of ${wanted ?? 'none'}`, () => {
    assert.equal(
      userAt(Object.fromEntries(keys.map((key) => [key, { username: key, password: 'p' }])), address),
      wanted,
    )
  })
}

test('what is no docker configuration is a fault, and nothing of it is repeated', () => {
  for (const content of [
    'canary',
    '{}',
    '[]',
    '{"auths":null}',
    { auths: { 'a.io': {}, 'https://A.io': {} } },
    { auths: {}, credHelpers: { 'a.io': '../canary' } },
    { auths: {}, credHelpers: { 'a.io': 1 } },
    { auths: null, credHelpers: 'canary' },
  ]) {
    assert.throws(
      () => read(content),
      (error: Error) => /^must /.test(error.message) && !/canary/.test(error.message),
    )
  }
  assert.throws(() => readAuthFile(join(folder, 'none')), /^Error: cannot be read: ENOENT$/)
})

test('an entry without a password, or with an identity token, says why it cannot be used', () => {
  const { entries, helpers } = read({
    auths: { 'a.io': {}, 'b.io': { identitytoken: 'x' }, 'c.io': auth('c:d') },
    credsStore: 'desktop',
    credHelpers: { 'D.io:443': 'ecr-login', 'https://index.docker.io/v1/': 'pass' },
  })
  assert.deepEqual(helpers, [
    { host: 'd.io', helper: 'docker-credential-ecr-login' },
    { host: 'docker.io', helper: 'docker-credential-pass' },
  ])
  assert.deepEqual(read({ credHelpers: { 'a.io': 'own' } }), {
    entries: [],
    helpers: [{ host: 'a.io', helper: 'docker-credential-own' }],
  })
  assert.match(entries[0]?.unusable ?? '', /no user and password/)
  assert.match(entries[1]?.unusable ?? '', /identity token/)
  assert.equal(entries[2]?.unusable, '')
})

test('a long pattern is matched in linear time', () => {
  const key = `${'*a'.repeat(5000)}b.io`
  const before = performance.now()
  assert.equal(userAt({ [key]: auth('x:y') }, `https://${'a'.repeat(200)}.io`), undefined)
  assert.ok(performance.now() - before < 200)
})
