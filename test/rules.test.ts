/** The rules of relay and memory, function by function: whose name it is, hints, kept manifests, shared questions, referrers. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { type Match, match } from '../routing.ts'
import { Background } from '../src/memory/background.ts'
import { askTogether, Flights } from '../src/memory/flights.ts'
import { Hints } from '../src/memory/hints.ts'
import { Names } from '../src/memory/names.ts'
import { accepts, loginAt, mayShare, type Reading, readingOf } from '../src/memory/reading.ts'
import { type Recalled, Stored, type StoredSettings } from '../src/memory/stored.ts'
import { Tags } from '../src/memory/tags.ts'
import { Writes } from '../src/memory/writes.ts'
import { type Answer, goneAnswer, type Question, type Registry, skipReason } from '../src/registry/answer.ts'
import { Globs } from '../src/registry/globs.ts'
import { nextQuery } from '../src/registry/links.ts'
import { discard } from '../src/registry/registry.ts'
import { Job } from '../src/relay/copy.ts'
import { hold } from '../src/relay/hold.ts'
import { blockedBy, ownNames } from '../src/relay/names.ts'
import { type PlanRules, planOf } from '../src/relay/plan.ts'
import { joined, readList, referrersTag } from '../src/relay/referrers.ts'
import { Budget, Room } from '../src/runtime/budget.ts'

const matched = (method: string, path: string): Match => {
  const found = match(method, path)
  assert.ok('route' in found)
  return found
}
const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`

const rules: PlanRules = {
  aggregate: new URL('https://registry.example'),
  hostedNames: new Globs(['team/**']),
  proxyNames: new Globs(['library/**', 'team/**', 'any']),
  proxyNs: ['docker.io'],
  hostedNs: [],
  proxies: [],
  tags: 'hosted',
  lookupOrder: 'proxy-first',
}
const manifest = (name: string) => `/v2/${name}/manifests/1`

/** method, path, query, changed rules; who is asked, or the status of the refusal */
const plans: [string, string, string, Partial<PlanRules>, string | number][] = [
  ['GET', manifest('any'), '', {}, 'proxy hosted'],
  ['GET', manifest('any'), '', { lookupOrder: 'hosted-first' }, 'hosted proxy'],
  ['GET', manifest('team/app'), '', {}, 'hosted'],
  ['GET', manifest('unlisted'), '', {}, 'hosted'],
  ['PUT', manifest('any'), '', {}, 'hosted'],
  ['GET', '/v2/any/tags/list', '', {}, 'hosted'],
  ['GET', '/v2/any/tags/list', '', { tags: 'lookup' }, 'proxy hosted'],
  ['GET', manifest('any'), '?ns=docker.io', {}, 'proxy'],
  ['GET', manifest('any'), '?ns=registry.example', {}, 'proxy hosted'],
  ['GET', manifest('any'), '?ns=registry.example:443', {}, 'proxy hosted'],
  ['GET', manifest('any'), '?ns=', {}, 'proxy hosted'],
  ['GET', manifest('any'), '?ns=ghcr.io', {}, 404],
  ['GET', manifest('any'), '?ns=docker.io&ns=ghcr.io', {}, 404],
  ['GET', manifest('team/app'), '?ns=docker.io', {}, 404],
  ['PUT', manifest('any'), '?ns=docker.io', {}, 405],
  ['GET', '/v2/any/blobs/uploads/1', '?ns=docker.io', {}, 405],
]
for (const [method, path, query, changed, wanted] of plans) {
  test(`${method} ${path}${query} ${JSON.stringify(changed)}: ${wanted}`, () => {
    const plan = planOf({ ...rules, ...changed }, method, matched(method, path), query)
    assert.equal('refused' in plan ? plan.refused : plan.order.join(' '), wanted)
  })
}

test('the reason why the proxy may not be asked names the setting', () => {
  assert.match(blockedBy(rules, 'team/app') ?? '', /HOSTED_NAMES/)
  assert.match(blockedBy(rules, 'unlisted') ?? '', /PROXY_NAMES/)
  assert.equal(blockedBy(rules, 'any'), undefined)
})

test('this router is called by its host, with or without the default port of its scheme', () => {
  assert.deepEqual(ownNames({ aggregate: new URL('http://a.example:5000') }), [
    'a.example:5000',
    'a.example',
    'a.example:80',
  ])
})

const registry = (role: 'hosted' | 'public', forwardsLogin = role === 'hosted'): Registry => ({
  name: role === 'public' ? 'proxy' : 'hosted',
  title: role === 'public' ? 'ghcr.io' : 'the private registry',
  role,
  forwardsLogin,
  ask: () => Promise.reject(new Error('not asked here')),
  isWell: async () => true,
  fieldsFor: () => ({}),
  fieldsFrom: ({ headers }) => [...headers],
  askRealm: async () => undefined,
})
const proxy = registry('public')
const hosted = registry('hosted')
const order = [proxy, hosted]
const answer = (from: Registry, changes: Partial<Answer> = {}): Answer => {
  return { from, verdict: 'found', status: 200, milliseconds: 0, headers: new Headers(), ...changes }
}
const type = 'application/vnd.oci.image.manifest.v1+json'
const reading = (reference: string, headers: Record<string, string> = {}): Reading => {
  const request = new Request('http://x/', { headers: { Accept: type, ...headers } })
  return readingOf(request, { matched: matched('GET', `/v2/a/manifests/${reference}`), fullName: 'a' }, '', true)
}

test('a range or a condition makes a reading partial; its login is a hash, and nothing without one', () => {
  assert.ok(reading('1', { Range: 'bytes=0-1' }).isPartial)
  assert.ok(!reading('1').isPartial)
  assert.equal(reading('1').login, '')
  const { login } = reading('1', { Authorization: 'Basic canary' })
  assert.ok(login && !login.includes('canary'))
})

test('what a registry says to a login is for that login; what it says to nobody in particular is for all', () => {
  const withLogin = reading('1', { Authorization: 'Basic x' })
  assert.deepEqual(
    [mayShare(hosted, withLogin), mayShare(proxy, withLogin), mayShare(hosted, reading('1'))],
    [false, true, true],
  )
  assert.deepEqual([loginAt(hosted, withLogin) !== '', loginAt(proxy, withLogin)], [true, ''])
})

test('Accept must list the type itself', () => {
  const accepting = (accept: string) => accepts({ ...reading('1'), accept }, `${type}; charset=utf-8`)
  assert.ok(accepting(`text/plain, ${type};q=0.5`))
  assert.ok(!accepting('*/*'))
})

const absentAt = (from: Registry) => answer(from, { verdict: 'absent', status: 404 })

test('hints: what the proxy lacked is known for ten times its time; after its time one is told to ask anew, at most once in that time', () => {
  const clock = { now: 1 }
  const hints = new Hints(1000, () => clock.now)
  const state = () => [hints.lacking(reading('1')), hints.isDue(reading('1'), false)]
  assert.deepEqual(state(), [undefined, false])
  hints.learn(reading('1'), absentAt(proxy))
  clock.now = 1001
  assert.deepEqual(state(), [proxy, false])
  clock.now = 1002
  assert.deepEqual(state(), [proxy, true])
  assert.deepEqual(state(), [proxy, false])
  clock.now = 2003
  assert.deepEqual(state(), [proxy, true], 'nobody answered')
  hints.learn(reading('1'), absentAt(proxy))
  clock.now = 12_004
  assert.deepEqual(state(), [undefined, false])
})

test('hints: a digest is never asked anew, since nobody changes its content', () => {
  const clock = { now: 1 }
  const hints = new Hints(1000, () => clock.now)
  hints.learn(reading(sha256('x')), absentAt(proxy))
  clock.now = 5000
  assert.deepEqual([hints.lacking(reading(sha256('x'))), hints.isDue(reading(sha256('x')), false)], [proxy, false])
})

test('hints: a tag that nothing is known of is to be asked if hosted was only guessed to have it, at most once in that time', () => {
  const clock = { now: 1 }
  const hints = new Hints(1000, () => clock.now)
  const isDue = (reference: string) => hints.isDue(reading(reference), true)
  assert.deepEqual([isDue('1'), isDue('1'), isDue('2'), isDue(sha256('x'))], [true, false, true, false])
  hints.learn(reading('2'), absentAt(proxy))
  assert.ok(!isDue('2'))
  clock.now = 1002
  assert.deepEqual([isDue('1'), isDue('2')], [true, true])
  assert.ok(!hints.isDue(reading('3', { Accept: 'x'.repeat(2048) }), true), 'too long to remember the answer')
})

test('hints: a public registry says 401 or 403 for what it lacks; a rate limit or an outage says nothing', () => {
  const rows: [Partial<Answer>, Registry | undefined][] = [
    [{ verdict: 'denied', status: 401 }, proxy],
    [{ verdict: 'denied', status: 403 }, proxy],
    [{ verdict: 'denied', status: 405 }, undefined],
    [{ verdict: 'limited', status: 429 }, undefined],
    [{ verdict: 'failed', status: 502 }, undefined],
    [{ verdict: 'gone', status: 499 }, undefined],
  ]
  for (const [changes, wanted] of rows) {
    const hints = new Hints(1000, () => 1)
    hints.learn(reading('1'), answer(proxy, changes))
    assert.equal(hints.lacking(reading('1')), wanted, `${changes.status}`)
  }
})

test('hints: a digest is asked first of the registry that served the name; what hosted lacks is not remembered', () => {
  const hints = new Hints(1000, () => 1)
  hints.learn(reading('1'), absentAt(hosted))
  assert.equal(hints.lacking(reading('1')), undefined)
  hints.learn(reading('1'), answer(hosted))
  assert.deepEqual([hints.serving(reading(sha256('x'))), hints.serving(reading('1'))], [hosted, undefined])
  assert.ok(!hints.isPublic('a'))
  hints.learn(reading('1'), answer(proxy))
  assert.ok(hints.isPublic('a'))
})

test('hints: with a time of 0 nothing is learned', () => {
  const hints = new Hints(0, () => 1)
  hints.learn(reading('1'), absentAt(proxy))
  assert.equal(hints.lacking(reading('1')), undefined)
})

/** Names with a clock; `list` asks for the list if that is due, and learns from the answer. */
function knownNames(nameTtlMs = 10_000, closedTtlMs = 1000) {
  const clock = { now: 1 }
  const names = new Names(nameTtlMs, closedTtlMs, () => clock.now)
  const list = (changes: Partial<Answer>) => {
    const learn = names.ask('a')
    learn?.(answer(proxy, changes))
    return learn !== undefined
  }
  return { clock, names, list }
}
const unknown = { verdict: 'absent', status: 404 } as const
const closed = { verdict: 'denied', status: 401 } as const

test('names: a 404 to the list is believed; after NAME_TTL one is told to ask anew, and it is believed until the answer', () => {
  const { clock, names, list } = knownNames()
  assert.ok(!names.lacks('a'))
  assert.ok(list(unknown) && names.lacks('a') && names.surelyLacks('a'))
  clock.now = 10_001
  assert.ok(!list(unknown))
  clock.now = 10_002
  const learn = names.ask('a')
  assert.ok(learn && names.ask('a') === undefined && names.lacks('a'))
  learn(answer(proxy, { verdict: 'limited', status: 429 }))
  assert.ok(names.lacks('a'), 'no answer')
  clock.now = 20_002
  assert.ok(!list(unknown), 'and not asked again before NAME_TTL is over')
  clock.now = 20_003
  assert.ok(list({}) && !names.lacks('a'))
})

test('names: each time the public registry still lacks a name it is believed for twice as long, for eight NAME_TTL at most', () => {
  const { clock, names, list } = knownNames()
  list(unknown)
  for (const times of [1, 2, 4, 8, 8, 8]) {
    clock.now += times * 10_000
    assert.ok(!list(unknown), `asked before ${times} NAME_TTL were over`)
    clock.now += 1
    assert.ok(list(unknown) && names.lacks('a'), `not asked after ${times} NAME_TTL`)
  }
  clock.now += 80_001
  assert.ok(list({}) && !names.lacks('a'))
  names.saw('a')
  clock.now += 10_001
  assert.ok(list(unknown) && names.lacks('a'), 'another answer begins anew')
  clock.now += 10_001
  assert.ok(list(unknown))
})

test('names: what nobody asks for is forgotten after ten times as long as it was last believed', () => {
  const { clock, names, list } = knownNames()
  for (const times of [1, 2, 4, 8]) {
    list(unknown)
    clock.now += times * 100_000 - 1
    assert.ok(names.lacks('a'), `forgotten before ${times} times ten NAME_TTL`)
  }
  clock.now += 2
  assert.ok(!names.lacks('a'))
})

test('names: a list that is closed is believed for LOOKUP_TTL, and then asked for again', () => {
  const { clock, names, list } = knownNames()
  assert.ok(list(closed) && names.lacks('a') && !names.surelyLacks('a') && !list(closed))
  clock.now = 1002
  assert.ok(!names.lacks('a') && list(closed) && names.lacks('a'))
})

test('names: what the public registry gave of a name ends the knowledge, and outlives a list that is closed', () => {
  for (const changes of [unknown, closed]) {
    const { clock, names, list } = knownNames()
    list(changes)
    names.saw('a')
    assert.ok(!names.lacks('a') && !list(changes))
    clock.now = 10_002
    assert.ok(list(changes))
    assert.equal(names.lacks('a'), changes === unknown)
  }
})

test('names: once a name that was lacking appears, what was known of its tags before no longer counts', () => {
  const { clock, names, list } = knownNames()
  names.saw('a')
  assert.equal(names.appearedAt('a'), undefined, 'nobody thought that it lacked the name')
  clock.now = 10_002
  list(unknown)
  names.saw('a')
  assert.equal(names.appearedAt('a'), 10_002)
  const hints = new Hints(10_000, () => clock.now)
  for (const now of [10_002, 10_003]) {
    clock.now = now
    hints.learn(reading('1'), absentAt(proxy))
    assert.equal(hints.lacking(reading('1'), names.appearedAt('a')), now === 10_002 ? undefined : proxy)
  }
})

test('names: an answer that is older than what was seen since says nothing', () => {
  const { clock, names } = knownNames()
  const learn = names.ask('a')
  clock.now = 2
  names.saw('a')
  learn?.(answer(proxy, unknown))
  assert.ok(!names.lacks('a'))
})

test('names: while there is no answer the list is asked for once a LOOKUP_TTL', () => {
  const { clock, names, list } = knownNames()
  const silent = { verdict: 'failed', status: 504 } as const
  assert.deepEqual([list(silent), list(silent), names.lacks('a')], [true, false, false])
  clock.now = 1002
  assert.ok(list(silent))
})

test('names: with a time of 0 nothing is asked or known', () => {
  for (const times of [
    [0, 1000],
    [10_000, 0],
  ] as const) {
    const { names, list } = knownNames(...times)
    names.saw('a')
    assert.deepEqual([list(unknown), names.lacks('a')], [false, false])
  }
})

/** Lets what has settled be acted on. */
const turn = () => new Promise((resolve) => setTimeout(resolve))

test('in the background eight are asked at a time, the others wait their turn; with the end all are abandoned', async () => {
  const background = new Background()
  const asked: { signal: AbortSignal; done: () => void }[] = []
  const ask = (signal: AbortSignal) => new Promise<void>((done) => asked.push({ signal, done }))
  for (let i = 0; i < 20; i++) background.run(ask)
  assert.equal(asked.length, 8)
  for (const { done } of asked.slice(0, 8)) done()
  await turn()
  assert.equal(asked.length, 16)
  background.end()
  assert.deepEqual(asked.map(({ signal }) => signal.aborted).slice(7, 9), [false, true])
  for (const { done } of asked) done()
  await turn()
  background.run(ask)
  assert.deepEqual([asked.length, background.hasRoom], [16, false])
})

test('in the background a thousand wait, not more', () => {
  const background = new Background()
  const ask = () => new Promise<void>(() => {})
  for (let i = 0; i < 1008; i++) {
    assert.ok(background.hasRoom)
    background.run(ask)
  }
  assert.ok(!background.hasRoom)
})

const content = Buffer.from('{"schemaVersion":2}') as unknown as Uint8Array<ArrayBuffer>
const digest = sha256('{"schemaVersion":2}')
const whole = (from: Registry, fields: Record<string, string> = {}) =>
  answer(from, { content, headers: new Headers({ 'Content-Type': type, ETag: `"${digest}"`, ...fields }) })
/** What is answered from memory, with a clock. */
const storedOf = (settings: Partial<StoredSettings> = {}) => {
  const clock = { now: 1 }
  const writes = new Writes(() => clock.now)
  const all = { lookupTtl: 1, tagTtl: 0, staleIfError: 0, manifestMemory: 1, ...settings }
  return { clock, writes, stored: new Stored(all, () => clock.now, writes) }
}

test('stored: what was read by tag is found by digest, and by the same tag of the same registry', () => {
  const { stored } = storedOf()
  stored.keep(whole(proxy), reading('1'), true)
  assert.equal(stored.recall(reading(digest), order)?.from, proxy)
  assert.equal(stored.recall(reading(digest), [hosted]), undefined, 'only hosted may be asked')
  assert.equal(stored.lastRead(proxy, reading('1'))?.tag.digest, digest)
  assert.equal(stored.lastRead(hosted, reading('1')), undefined)
  assert.equal(stored.lastRead(proxy, reading('2')), undefined)
})

test('stored: no manifest with another digest, with a cookie for the client, or without a type', () => {
  const cases: [string, Answer][] = [
    ['another digest', answer(proxy, { content: Buffer.from('x') as never, headers: whole(proxy).headers })],
    ['a cookie', whole(hosted, { 'Set-Cookie': 'a=1' })],
    ['no type', answer(proxy, { content, headers: new Headers({ ETag: `"${digest}"` }) })],
  ]
  for (const [what, one] of cases) {
    const { stored } = storedOf()
    stored.keep(one, reading(digest), true)
    assert.equal(stored.recall(reading(digest), order), undefined, what)
  }
})

test("stored: hosted's are for clients without a login, and for those who accept the type", () => {
  const { stored } = storedOf()
  stored.keep(whole(hosted), reading(digest), true)
  assert.ok(stored.recall(reading(digest), order))
  assert.equal(stored.recall(reading(digest, { Authorization: 'Basic x' }), order), undefined)
  assert.equal(stored.recall(reading(digest, { Accept: '*/*' }), order), undefined)
})

test('tags: what is known of them is bounded in bytes, however long and many the Accepts of a client are', () => {
  const tags = new Tags(1000, () => 1, new Writes(() => 1))
  const readings = Array.from({ length: 30_000 }, (_, nth) => {
    return reading(`${Math.floor(nth / 16)}`, { Accept: `${nth % 16}`.padEnd(1900, 'x') })
  })
  for (const one of readings) tags.learn(whole(proxy), one)
  const known = readings.filter((one) => tags.get(proxy, one)).length
  assert.ok(known > 10_000 && known * 1900 <= 32 * 1024 ** 2, `${known}`)
})

test('hints: a question that is long counts as several, so that memory stays bounded in bytes', () => {
  const hints = new Hints(1000, () => 1)
  const readings = Array.from({ length: 30_000 }, (_, nth) => reading(`${nth}`, { Accept: 'x'.repeat(1900) }))
  for (const one of readings) hints.learn(one, answer(proxy, { verdict: 'absent', status: 404 }))
  const known = readings.filter((one) => hints.lacking(one)).length
  assert.ok(known > 4000 && known <= 20_000 / 4, `${known}`)
})

test('stored: a write in the name makes all that was kept of it unfindable', () => {
  const { stored, writes } = storedOf()
  stored.keep(whole(proxy), reading('1'), true)
  writes.record('a')
  assert.equal(stored.recall(reading(digest), order), undefined)
  assert.equal(stored.lastRead(proxy, reading('1')), undefined)
})

test('stored: a 304 begins the time of a manifest anew', () => {
  const { clock, stored } = storedOf()
  stored.keep(whole(proxy), reading('1'), true)
  clock.now = 1000
  const last = stored.lastRead(proxy, reading('1'))
  assert.ok(last)
  stored.confirm(answer(proxy, { status: 304 }), reading('1'), last)
  clock.now = 2000
  assert.ok(stored.recall(reading(digest), order))
  clock.now = 2001
  assert.equal(stored.recall(reading(digest), order), undefined)
})

/** Age and Cache-Status of an answer from memory. */
const statusOf = (recalled: Recalled | undefined) => {
  const fields = new Headers(recalled?.headers)
  return recalled && [fields.get('Age'), fields.get('Cache-Status')]
}

test('TAG_TTL: a public tag is answered until it is over; after half of it one is told to ask anew', () => {
  const { clock, stored } = storedOf({ tagTtl: 10 })
  stored.keep(whole(proxy), reading('1'), true)
  clock.now = 4001
  const young = stored.recall(reading('1'), order)
  assert.deepEqual([young?.isDue, statusOf(young)], [false, ['4', 'combined-registry; hit; ttl=6']])
  clock.now = 5001
  const due = () => stored.recall(reading('1'), order)?.isDue
  assert.deepEqual([due(), due()], [true, false])
  clock.now = 10_001
  assert.deepEqual([due(), due()], [true, false])
  clock.now = 10_002
  assert.equal(due(), undefined)
})

test('TAG_TTL: only of a public registry that comes first, without a range or a condition, and unless a client says no-cache', () => {
  const { stored } = storedOf({ tagTtl: 10 })
  const rows: [string, Reading, Registry[], string | undefined][] = [
    ['as it is', reading('1'), order, 'fresh'],
    ['alone', reading('1'), [proxy], 'fresh'],
    ['a login that the proxy does not see', reading('1', { Authorization: 'Basic x' }), order, 'fresh'],
    ['hosted first', reading('1'), [hosted, proxy], undefined],
    ['hosted alone', reading('1'), [hosted], undefined],
    ['a condition', reading('1', { 'If-None-Match': '"x"' }), order, undefined],
    ['no-cache', reading('1', { 'Cache-Control': 'max-age=1, No-Cache' }), order, undefined],
  ]
  for (const [what, one, registries, wanted] of rows) assert.equal(stored.kindOf(one, registries), wanted, what)
  stored.keep(whole(hosted), reading('1'), true)
  assert.equal(stored.recall(reading('1'), order), undefined, "hosted's")
  assert.equal(storedOf().stored.kindOf(reading('1'), order), undefined, 'TAG_TTL=0')
})

test("a tag's answer has the fields of its own answer, and the age that it came with", () => {
  const { clock, stored } = storedOf({ tagTtl: 10 })
  stored.keep(
    whole(proxy, { 'Cache-Control': 'immutable', 'Cache-Status': 'hub; hit', Age: '9' }),
    reading(digest),
    true,
  )
  stored.keep(whole(proxy, { 'Cache-Control': 'no-cache', Age: '3' }), reading('1'), false)
  clock.now = 2001
  const recalled = stored.recall(reading('1'), order)
  assert.deepEqual(statusOf(recalled), ['5', 'hub; hit, combined-registry; hit; ttl=8'])
  assert.equal(new Headers(recalled?.headers).get('Cache-Control'), 'no-cache')
})

const limited = answer(proxy, { verdict: 'limited', status: 429, response: new Response('', { status: 429 }) })

test('STALE_IF_ERROR: the last answer stands in for one that a public registry fails to give, until it is over', () => {
  const { clock, stored } = storedOf({ staleIfError: 60 })
  stored.keep(whole(proxy), reading('1'), true)
  clock.now = 5001
  const skipped = { verdict: 'failed', status: 502, reason: skipReason } as const
  const silent = { verdict: 'failed', status: 504, reason: 'no answer within 15 s' } as const
  for (const [given, wanted] of [
    [limited, 'combined-registry; fwd=stale; fwd-status=429; ttl=-5'],
    [answer(proxy, skipped), 'combined-registry; hit; ttl=-5'],
    [answer(proxy, silent), 'combined-registry; fwd=stale; ttl=-5'],
  ] as const) {
    const stale = stored.instead(reading('1'), given)
    assert.deepEqual([stale?.isStale, stale?.age, statusOf(stale)], [true, 5, ['5', wanted]])
  }
  assert.deepEqual(
    statusOf(stored.instead(reading(digest), limited))?.[1],
    'combined-registry; fwd=stale; fwd-status=429; ttl=-4',
  )
  clock.now = 60_002
  assert.equal(stored.instead(reading('1'), limited), undefined)
})

test('STALE_IF_ERROR: not for an answer that is one, not before a HEAD is clear, not of hosted, and not if a client says no-cache', () => {
  const { stored } = storedOf({ staleIfError: 60 })
  for (const from of [proxy, hosted]) stored.keep(whole(from), reading(from === proxy ? '1' : '2'), true)
  const failed = { verdict: 'failed', status: 502 } as const
  for (const [what, one, given] of [
    ['found', reading('1'), answer(proxy)],
    ['absent', reading('1'), absentAt(proxy)],
    ['denied', reading('1'), answer(proxy, { verdict: 'denied', status: 403 })],
    ['a vague HEAD', reading('1'), answer(proxy, { ...failed, isVague: true })],
    ['hosted', reading('2'), answer(hosted, failed)],
    ['no-cache', reading('1', { 'Cache-Control': 'no-cache' }), limited],
    ['a range', reading('1', { Range: 'bytes=0-1' }), limited],
    ['a tag that nobody read', reading('3'), limited],
  ] as const) {
    assert.equal(stored.instead(one, given), undefined, what)
  }
})

test('STALE_IF_ERROR: nothing of a tag is left after its 404, whatever was accepted, and after a 401 not its manifest either', () => {
  const rows: [Partial<Answer>, boolean][] = [
    [{ verdict: 'absent', status: 404 }, true],
    [{ verdict: 'denied', status: 401 }, false],
    [{ verdict: 'denied', status: 403 }, false],
  ]
  for (const [changes, isLeft] of rows) {
    const { stored } = storedOf({ staleIfError: 60 })
    stored.keep(whole(proxy), reading('1'), true)
    stored.forget(reading('1', { Accept: '*/*' }), answer(proxy, changes))
    assert.equal(stored.instead(reading('1'), limited), undefined)
    assert.equal(stored.instead(reading(digest), limited) !== undefined, isLeft)
    stored.forget(reading(digest), absentAt(proxy))
    assert.equal(stored.instead(reading(digest), limited), undefined)
  }
})

test('writes: a push is remembered for an hour, a write that hosted refused is not', () => {
  const clock = { now: 0 }
  const writes = new Writes(() => clock.now)
  writes.record('refused', false)
  assert.ok(!writes.isPushedTo('refused'))
  writes.record('pushed')
  writes.record('pushed', false)
  assert.ok(writes.isPushedTo('pushed'))
  clock.now = 3_600_001
  assert.ok(!writes.isPushedTo('pushed'))
  assert.notEqual(writes.generationOf('pushed'), writes.generationOf('other'))
})

/** A question that is answered when `resolve` is called. */
function question() {
  let resolve: (given: Answer) => void = () => {}
  const asked: AbortSignal[] = []
  const ask = (signal: AbortSignal) => {
    asked.push(signal)
    return new Promise<Answer>((done) => {
      resolve = done
    })
  }
  return { ask, asked, resolve: (given: Answer) => resolve(given) }
}

test('flights: all who ask the same at the same time share one question', async () => {
  const uses: boolean[] = []
  const flights = new Flights(new Budget(10), (isShared) => uses.push(isShared))
  const { ask, asked, resolve } = question()
  const clients = Array.from({ length: 3 }, () => new AbortController())
  const answers = clients.map((asker) => askTogether(flights, 'key', proxy, asker, ask))
  resolve(answer(proxy, { verdict: 'absent', status: 404 }))
  assert.deepEqual(
    (await Promise.all(answers)).map(({ status }) => status),
    [404, 404, 404],
  )
  assert.deepEqual([asked.length, uses], [1, [false, true, true]])
})

test('flights: who leaves is gone; the question ends when the last one has left', async () => {
  const flights = new Flights(new Budget(10))
  const { ask, asked } = question()
  const [first, second] = [new AbortController(), new AbortController()]
  const answers = [first, second].map((asker) => askTogether(flights, 'key', proxy, asker, ask))
  first.abort()
  assert.equal((await answers[0])?.verdict, 'gone')
  assert.equal(asked[0]?.aborted, false)
  second.abort()
  assert.equal((await answers[1])?.verdict, 'gone')
  assert.equal(asked[0]?.aborted, true)
})

test('flights: a body that streams and a cookie are for the first; the others ask themselves', async () => {
  for (const changes of [{ response: new Response('x') }, { headers: new Headers({ 'Set-Cookie': 'a=1' }) }]) {
    const flights = new Flights(new Budget(10))
    const asked: AbortSignal[] = []
    const ask = async (signal: AbortSignal) => {
      asked.push(signal)
      return answer(hosted, changes)
    }
    const share = () => askTogether(flights, 'key', hosted, new AbortController(), ask)
    await Promise.all([share(), share()])
    assert.equal(asked.length, 2)
  }
})

test('a budget gives room until it is used up, and again when some is released', () => {
  const budget = new Budget(10)
  assert.deepEqual([budget.take(6), budget.take(5), budget.take(4)], [true, false, true])
  budget.release(6)
  assert.ok(budget.take(6))
})

test('a room gives back what it holds when the last one that uses it ends; what comes later is not held', () => {
  const budget = new Budget(10)
  const [list, first, second] = [new Room(budget), new Room(budget), new Room(budget)]
  assert.ok(list.take(8) && first.take(1))
  for (const one of [first, second]) one.share(list)
  list.end()
  first.end()
  assert.equal(budget.bytes, 8)
  second.end()
  assert.equal(budget.bytes, 0)
  list.add(5)
  assert.deepEqual([list.take(1), budget.bytes], [false, 0])
})

test('flights: what is read whole is held as long as one of those who asked needs it', async () => {
  const budget = new Budget(10)
  const flights = new Flights<string>(budget)
  const rooms = [new Room(budget), new Room(budget)] as const
  const { signal } = new AbortController()
  const ask = async (_: AbortSignal, room?: Room) => `${room?.take(4)}`
  const landed = await Promise.all(rooms.map((room) => flights.join('key', { signal, room }, ask)))
  assert.deepEqual(
    landed.map((one) => one?.value),
    ['true', 'true'],
  )
  assert.equal(budget.bytes, 4)
  for (const [at, room] of rooms.entries()) {
    room.end()
    assert.equal(budget.bytes, at === 0 ? 4 : 0)
  }
})

const listing = (...given: { digest: string; artifactType?: string; from?: string }[]) => ({
  descriptors: given.map((one) => ({ digest: one.digest, artifactType: one.artifactType, text: JSON.stringify(one) })),
})

test('referrers: one list of both, each descriptor once and as the last list has it, filtered by type', () => {
  const proxyList = listing({ digest: 'a', artifactType: 'sbom' }, { digest: 'b' })
  const hostedList = listing({ digest: 'a', artifactType: 'sbom', from: 'hosted' }, { digest: 'c' })
  const of = (artifactType: string | null) => JSON.parse(joined([proxyList, hostedList], artifactType)).manifests
  assert.deepEqual(of(null), [{ digest: 'b' }, { digest: 'a', artifactType: 'sbom', from: 'hosted' }, { digest: 'c' }])
  assert.deepEqual(of('sbom'), [{ digest: 'a', artifactType: 'sbom', from: 'hosted' }])
})

test('referrers: the next page is the link with rel=next, whatever else the field has', () => {
  const rows: [string, string | undefined][] = [
    ['</v2/a/referrers/x?last=1>; rel="next"', '?last=1'],
    ['</first>; rel=first, </v2/a?n=2>; title="a, b"; rel="prev next"', '?n=2'],
    ['</v2/a?n=2>; rel=prev', undefined],
    ['</v2/a/referrers/x>; rel="next"', ''],
    ['', undefined],
  ]
  for (const [links, wanted] of rows) assert.equal(nextQuery(links), wanted, links)
})

test('referrers: a page that is gone, or is no list, makes the whole list failed', async () => {
  const page = (text: string, link?: string) =>
    answer(proxy, {
      content: Buffer.from(text) as never,
      headers: new Headers(link ? { Link: `<x?${link}>; rel="next"` } : {}),
    })
  const pages: Record<string, Answer> = {
    '?good': page('{"manifests":[{"digest":"a"}]}'),
    '?null': page('{"manifests":null}'),
    '?next-good': page('{"manifests":[{"digest":"b"}]}', 'good'),
    '?next-gone': page('{"manifests":[]}', 'gone'),
    '?gone': answer(proxy, { verdict: 'absent', status: 404 }),
    '?html': page('<html>'),
    '?left': goneAnswer(proxy),
  }
  const read = async (query: string) => {
    const { answer, descriptors } = await readList(async (asked) => pages[asked] as Answer, query)
    return [answer.verdict, descriptors.length]
  }
  assert.deepEqual(await read('?good'), ['found', 1])
  assert.deepEqual(await read('?null'), ['found', 0])
  assert.deepEqual(await read('?next-good'), ['found', 2])
  assert.deepEqual(await read('?next-gone'), ['failed', 0])
  assert.deepEqual(await read('?gone'), ['absent', 0])
  assert.deepEqual(await read('?html'), ['failed', 0])
  assert.deepEqual(await read('?left'), ['gone', 0])
})

test('the referrers tag of a digest is cut as the specification says', () => {
  assert.equal(referrersTag(`sha512:${'b'.repeat(128)}`), `sha512-${'b'.repeat(64)}`)
})

test('a body is held as far as half of the room goes; what is too long is still all there', async () => {
  async function* body() {
    yield* ['ab', 'cd', 'ef'].map((text) => Buffer.from(text))
  }
  const room = new Room(new Budget(12))
  const whole = await hold(body(), room, 10)
  assert.ok(whole && whole !== 'late' && 'whole' in whole)
  assert.equal(Buffer.from(whole.whole).toString(), 'abcdef')
  const second = await hold(body(), room, 10)
  assert.ok(second && second !== 'late' && 'rest' in second)
  let text = ''
  for await (const chunk of second.rest) text += Buffer.from(chunk)
  assert.equal(text, 'abcdef')
})

test('a body that does not come in time is late', async () => {
  async function* body() {
    yield Buffer.from('a')
    await new Promise(() => {})
  }
  assert.equal(await hold(body(), undefined, 0.01), 'late')
})

test('a copy reads what it was told even if its client leaves before, and all else is discarded', async () => {
  const response = new Response('a layer', { headers: { 'Content-Length': '7' } })
  const blob = answer(proxy, { status: 200, headers: response.headers, response })
  let stored = ''
  const ask = async (to: Registry, { body }: Partial<Question> = {}) => {
    if (to === proxy) return blob
    for (const one of job.leaveClient().answers) discard(one)
    for await (const chunk of body as AsyncIterable<Uint8Array>) stored += Buffer.from(chunk)
    return answer(hosted, { status: 201 })
  }
  const byName = new Map([proxy, hosted].map((one) => [one.name, one]))
  const source = { registry: proxy.name, digest: sha256('a layer'), places: [{ path: '/', fullName: 'a' }], source: '' }
  const around = { session: '/1', registries: { hosted, proxy, byName }, ask, client: new AbortController().signal }
  const job = new Job({ ...source, ...around }, { copyLimit: 10, writeTimeout: 1, idleTimeout: 1 }, () => {})
  assert.equal((await job.perform()).state, 'stored')
  assert.equal(stored, 'a layer')
})
