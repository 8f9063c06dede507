/** Where a redirect or a realm may lead: every kind of address, with a resolver of the test's own, on sockets of loopback only. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, test } from 'node:test'
import { realmUrl } from '../src/registry/realm.ts'
import { faultOfRedirect } from '../src/registry/redirects.ts'
import { type AddressKind, allowedOf, kindOf } from '../src/runtime/addresses.ts'
import { connectToAny } from '../src/runtime/attempts.ts'
import { createFetch } from '../src/runtime/fetch.ts'
import { ForbiddenAddress } from '../src/runtime/runtime.ts'
import { Shortage } from '../src/runtime/shortage.ts'
import { until } from './parts/until.ts'

const kinds: Record<AddressKind, string[]> = {
  never: [
    ...['169.254.169.254', '169.254.0.1', '100.100.100.200', '168.63.129.16', '192.0.0.192', '0.0.0.0', '0.1.2.3'],
    ...['224.0.0.1', '240.0.0.1', '255.255.255.255', '::', 'fe80::1', 'fe80::1%eth0', 'ff02::1', 'fd00:ec2::254'],
    // IPv4 in IPv6: mapped, compatible, NAT64, 6to4.
    ...['::ffff:169.254.169.254', '::ffff:a9fe:a9fe', '::169.254.169.254', '64:ff9b::a9fe:a9fe', '2002:a9fe:a9fe::1'],
    ...['', 'metadata.google.internal', '1.2.3', '2130706433'],
  ],
  private: [
    ...['127.0.0.1', '127.255.255.254', '10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', '100.64.0.1'],
    ...['198.18.0.1', '::1', 'fc00::1', 'fd12:3456::1', '::ffff:127.0.0.1', '::ffff:10.0.0.1', '64:ff9b::7f00:1'],
  ],
  public: [
    ...['93.184.216.34', '172.15.0.1', '172.32.0.1', '100.128.0.1', '169.253.0.1', '2606:2800:220:1::1'],
    ...['::ffff:93.184.216.34', '2002:5db8:d822::1'],
  ],
}
for (const [kind, addresses] of Object.entries(kinds)) {
  test(`addresses that are ${kind}`, () => {
    for (const address of addresses) assert.equal(kindOf(address), kind, address)
  })
}

test('a private address is for registries at private addresses only; a link-local or metadata address for none', () => {
  const [outside, inside] = [['93.184.216.34'], ['10.1.1.1']]
  const all = ['93.184.216.34', '10.0.0.1', '127.0.0.1', '169.254.169.254', '::ffff:169.254.169.254']
  assert.deepEqual(allowedOf(all, outside), ['93.184.216.34'])
  assert.deepEqual(allowedOf(all, inside), ['93.184.216.34', '10.0.0.1', '127.0.0.1'])
  assert.deepEqual(allowedOf(all, []), ['93.184.216.34'])
})

const server = http.createServer((_, response) => response.end('here'))
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const { port } = server.address() as AddressInfo
after(() => {
  server.closeAllConnections()
  server.close()
})

/** Asks for the server under a name, sent by a registry; the resolver gives each host's addresses in turn. */
async function ask(host: string, sentBy: string, addresses: Record<string, string[][]>) {
  const resolved: string[] = []
  const fetch = await createFetch(undefined, 1000, async (name) => {
    resolved.push(name)
    const turns = addresses[name] ?? [[name]]
    return (turns.length > 1 ? turns.shift() : turns[0]) as string[]
  })
  const { signal } = new AbortController()
  const reply = fetch(`http://${host}:${port}/`, { method: 'GET', headers: {}, signal, sentBy })
  return { reply, resolved }
}

test('a registry at loopback leads to loopback, by address or by name', async () => {
  const names = { 'storage.example': [['127.0.0.1']], 'registry.example': [['127.0.0.1']] }
  for (const host of ['127.0.0.1', 'storage.example']) {
    for (const sentBy of ['http://127.0.0.1:1/v2/', 'https://registry.example/v2/']) {
      const { reply } = await ask(host, sentBy, names)
      assert.equal(Buffer.from(await (await reply).arrayBuffer()).toString(), 'here')
    }
  }
})

test('a host with several addresses is reached if one of those that are allowed takes the connection', async () => {
  const dead = ['::1', '127.0.0.2', '127.0.0.3']
  for (const [addresses, isReached] of [
    [['::1', '127.0.0.1'], true],
    [['127.0.0.2', '127.0.0.1', '::1'], true],
    [dead, false],
    // The working address is the seventh: only six are tried.
    [[...dead, ...dead, '127.0.0.1'], false],
    [['169.254.169.254', '127.0.0.1'], true],
  ] as const) {
    const { reply } = await ask('storage.example', 'http://127.0.0.1:1/v2/', { 'storage.example': [[...addresses]] })
    if (isReached) assert.equal((await reply).status, 200, `${addresses}`)
    else await assert.rejects(reply, /ECONNREFUSED|refused/, `${addresses}`)
  }
})

test('a registry that refused is the cause, whatever this machine lacks for its other addresses', async () => {
  for (const faults of [
    [new Shortage('ports', 'EADDRNOTAVAIL'), new Error('refused')],
    [new Error('refused'), new Shortage('ports', 'EADDRNOTAVAIL')],
  ]) {
    const untold = [...faults]
    const connect = (_: unknown, callback: (...result: unknown[]) => void) => callback(untold.shift(), null)
    const fault = await new Promise((resolve) => {
      connectToAny(connect as never, { hostname: 'x' } as never, ['a', 'b'], (...[error]) => resolve(error))
    })
    assert.equal((fault as Error).message, 'refused')
  }
})

test('the next address is tried while the one before does not answer; the connection that comes later is closed', async () => {
  const given: string[] = []
  const closed: string[] = []
  const socketOf = (address: string) => ({ address, destroy: () => closed.push(address) })
  const waiting = new Map<string, (error: Error | null) => void>()
  const connect = ({ hostname }: { hostname: string }, callback: (...result: unknown[]) => void) => {
    given.push(hostname)
    waiting.set(hostname, (error) => (error ? callback(error, null) : callback(null, socketOf(hostname))))
  }
  const connected = new Promise((resolve) => {
    connectToAny(connect as never, { hostname: 'x' } as never, ['a', 'b', 'c'], (_, socket) => resolve(socket))
  })
  assert.deepEqual(given, ['a'])
  await until('the next try', () => given.length === 2)
  waiting.get('b')?.(new Error('refused'))
  assert.deepEqual(given, ['a', 'b', 'c'])
  waiting.get('c')?.(null)
  waiting.get('a')?.(null)
  assert.equal(((await connected) as { address: string }).address, 'c')
  assert.deepEqual(closed, ['a'])
})

test('a registry elsewhere never leads to loopback, whatever the name resolves to', async () => {
  const registry = { 'registry.example': [['93.184.216.34']] }
  for (const [host, addresses] of [
    ['127.0.0.1', []],
    ['storage.example', ['127.0.0.1']],
    ['storage.example', ['::1']],
    ['storage.example', ['::ffff:127.0.0.1']],
    ['storage.example', ['169.254.169.254']],
    ['storage.example', ['10.0.0.1', '169.254.169.254', '::1']],
  ] as const) {
    const { reply } = await ask(host, 'https://registry.example/', { ...registry, 'storage.example': [[...addresses]] })
    await assert.rejects(reply, ForbiddenAddress, `${host} ${addresses}`)
  }
})

test('not even a registry at loopback leads to a link-local address', async () => {
  const names = { 'storage.example': [['169.254.169.254', 'fe80::1']] }
  const { reply } = await ask('storage.example', 'http://127.0.0.1:1/', names)
  await assert.rejects(reply, ForbiddenAddress)
})

test('the address that was checked is the one connected to: a name that changes is asked for once', async () => {
  // A second look would give an address where nobody listens.
  const names = { 'storage.example': [['127.0.0.1'], ['127.0.0.2']] }
  const { reply, resolved } = await ask('storage.example', 'http://127.0.0.1:1/', names)
  assert.equal((await reply).status, 200)
  assert.deepEqual(resolved, ['127.0.0.1', 'storage.example'])
})

test('of several addresses an allowed one is taken', async () => {
  const names = { 'storage.example': [['169.254.169.254', '127.0.0.1']] }
  const { reply } = await ask('storage.example', 'http://127.0.0.1:1/', names)
  assert.equal((await reply).status, 200)
})

test('a redirect is not followed from https to http, to this router, with a login in it, or to no web address', () => {
  const rows: [from: string, location: string, follows: boolean][] = [
    ['https://r/v2/a', 'https://storage.example/x', true],
    ['http://r/v2/a', 'https://storage.example/x', true],
    ['http://r/v2/a', 'http://storage.example/x', true],
    ['https://r/v2/a', '/v2/b', true],
    ['https://r/v2/a', '//storage.example/x', true],
    ['https://r/v2/a', 'http://storage.example/x', false],
    ['https://r/v2/a', 'http://r/v2/a', false],
    ['http://r/v2/a', 'https://registry.example/v2/a', false],
    ['http://r/v2/a', 'http://registry.example/v2/a', false],
    ['http://r/v2/a', 'https://user:pass@storage.example/', false],
    ['http://r/v2/a', 'ftp://storage.example/', false],
    ['http://r/v2/a', 'javascript:alert(1)', false],
    ['http://r/v2/a', 'http://', false],
    ['http://r/v2/a', '', false],
  ]
  for (const [from, location, follows] of rows) {
    assert.equal(faultOfRedirect(location, from, 'registry.example') === undefined, follows, `${from} ${location}`)
  }
})

test('the address of a realm: in the scheme of its registry if it is there, else as it is, never in clear with a password', () => {
  const rows: [origin: string, realm: string, hasPassword: boolean, wanted: string | undefined][] = [
    ['http://h:5000', 'https://h:5000/v2/token', true, 'http://h:5000/v2/token'],
    ['https://h:5000', 'http://h:5000/v2/token', true, 'https://h:5000/v2/token'],
    ['http://h:5000', 'https://registry.example/v2/token', true, 'http://h:5000/v2/token'],
    ['http://h:5000', '/token', true, 'http://h:5000/token'],
    ['http://h', 'https://h/token', true, 'https://h/token'],
    ['http://h:5000', 'https://auth.example/token?a=b', true, 'https://auth.example/token?a=b'],
    ['http://h:5000', 'http://h:6000/token', true, 'http://h:6000/token'],
    ['http://h:5000', 'http://auth.example/token', true, undefined],
    ['http://h:5000', 'http://auth.example/token', false, 'http://auth.example/token'],
    ['https://h', 'http://auth.example/token', false, undefined],
    ['https://h', 'ftp://auth.example/token', false, undefined],
    ['https://h', 'http://[', false, undefined],
  ]
  for (const [origin, realm, hasPassword, wanted] of rows) {
    const ask = () => realmUrl({ scheme: 'bearer', realm }, origin, hasPassword, 'registry.example').href
    if (wanted === undefined) assert.throws(ask, /realm/, realm)
    else assert.equal(ask(), wanted)
  }
})
