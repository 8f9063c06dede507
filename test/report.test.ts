/** The pieces of the page: what they make of data, without a router. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Answer, type Registry, skipReason } from '../src/registry/answer.ts'
import { remedyOf } from '../src/report/page/explained.ts'
import { Failures, maxFailures, type Seen } from '../src/report/page/failures.ts'
import { noticeOfEnd, noticesOf, settingsTable } from '../src/report/page/notices.ts'
import { stateOf } from '../src/report/page/state.ts'
import { bytes, duration, headingOf, whyIn, withDigests } from '../src/report/page/words.ts'

const registry = (name: string, title: string) =>
  ({ name, title, role: name === 'hosted' ? 'hosted' : 'public' }) as Registry
const hosted = registry('hosted', 'the private registry')
const cache = registry('proxy', 'the cache of docker.io')
const ghcr = registry('ghcr.io', 'ghcr.io')
const ping = (from: Registry, changes: Partial<Answer> = {}): Answer =>
  ({ from, verdict: 'found', status: 200, milliseconds: 4.4, headers: new Headers(), ...changes }) as Answer
const known = { isSkipped: false, now: 5000, mayKnow: false }

test('a registry is called by its host, and hosted by its name', () => {
  const others = [registry('proxy', 'docker.io'), registry('proxy', 'the public registry')]
  assert.deepEqual([hosted, cache, ghcr, ...others].map(headingOf), [
    'hosted',
    'docker.io',
    'ghcr.io',
    'docker.io',
    'public registry',
  ])
})

test('amounts and times have a unit that fits', () => {
  const amounts = [bytes(2047), bytes(2048), bytes(5 * 2 ** 30), duration(0), duration(119_000), duration(7_200_000)]
  const expected = ['2047 B', '2 KiB', '5 GiB', '0 s', '119 s', '2 h'].map((one) => one.replace(' ', '\u00a0'))
  assert.deepEqual(amounts, expected)
})

test('a digest is short, and whole in its title; other text is as it is, without control characters', async () => {
  const digest = `sha256:${'0123456789abcdef'.repeat(4)}`
  const parts = await Promise.all(withDigests(`found 200 ${digest}  4 ms\u202e`))
  assert.equal(parts.join(''), `found 200 <code title="${digest}">sha256:0123456789ab…</code>  4 ms\ufffd`)
})

const whys: [string | undefined, string | undefined, string | undefined, string | undefined][] = [
  [undefined, undefined, undefined, undefined],
  ['no answer', 'ECONNREFUSED', 'nothing listens at its address (ECONNREFUSED)', undefined],
  ['no answer', 'connect ECONNREFUSED 10.0.0.7:5000', 'nothing listens at its address (ECONNREFUSED)', undefined],
  ['no answer', 'ENOTFOUND', 'its host name does not resolve (ENOTFOUND)', undefined],
  ['no answer', 'other side closed', 'it broke the connection off', undefined],
  [
    'no answer',
    'CERT_HAS_EXPIRED',
    'its certificate is not trusted here, has ended, or has another name (CERT_HAS_EXPIRED)',
    undefined,
  ],
  [
    'no answer',
    'ERR_SSL_WRONG_VERSION_NUMBER',
    'no TLS is spoken at its address (ERR_SSL_WRONG_VERSION_NUMBER)',
    undefined,
  ],
  [
    'no answer',
    'the realm gives no answer: ENOTFOUND',
    'the realm that it sends to for tokens gives none (ENOTFOUND)',
    undefined,
  ],
  ['no answer', 'read 10.0.0.7', 'no answer', 'no answer: read 10.0.0.7'],
  ['no answer within 15 s', 'timeout', 'no answer within 15 s', undefined],
  [skipReason, undefined, skipReason, undefined],
  [skipReason, 'ENOTFOUND', 'its host name does not resolve (ENOTFOUND)', undefined],
  [
    'redirects where it may not lead',
    'a redirect to file:///certificate',
    'redirects where it may not lead',
    'redirects where it may not lead: a redirect to file:///certificate',
  ],
]
for (const [reason, cause, toAll, toFew] of whys) {
  test(`why there is no usable answer: ${reason}, ${cause}`, () => {
    assert.equal(whyIn({ reason, cause }, false), toAll)
    assert.equal(whyIn({ reason, cause }, true), toFew ?? toAll)
  })
}

test('the state of a registry: figures, a level, and what follows', () => {
  const up = stateOf(ping(hosted), known)
  assert.deepEqual([up.words, up.level, up.figures, up.lines], ['up', 'good', ['200', '4\u00a0ms'], []])
  const silent = ping(cache, { verdict: 'failed', status: 502, reason: 'no answer', cause: 'ECONNREFUSED' })
  const down = stateOf(silent, { ...known, isSkipped: true })
  assert.deepEqual([down.words, down.level, down.figures], ['down, skipped', 'bad', ['4\u00a0ms']])
  assert.match(
    down.lines.join(' '),
    /nothing listens at its address .* Public images cannot be pulled, .* every 1 to 30 s/,
  )
  const said = { upstream: 'ghcr.io', verdict: 'limited', status: 429, milliseconds: 1, reason: undefined } as const
  const limited = stateOf(ping(ghcr, { status: 401 }), { ...known, last: { said, at: 0 } })
  assert.deepEqual(
    [limited.words, limited.level, limited.about],
    ['up, limited', 'warn', 'a public registry, for pulls only'],
  )
  assert.match(limited.lines.join(' '), /429 until that is over\. Last asked for content 5\ss ago: limited \(429\)\./)
})

const seen = (id: string, changes: Partial<Seen> = {}): Seen => {
  const path = '/v2/team/app/manifests/1'
  return { id, method: 'GET', path, query: '', status: 502, isSent: true, hasLogin: false, ...changes }
}

test('requests that failed alike are one, with a count and the last id; the newest come first, and old ones go', () => {
  const failures = new Failures()
  failures.record(seen('a'), [])
  failures.record(seen('b', { status: 404 }), [])
  failures.record(seen('c'), [])
  const list = () => failures.list().map(({ id, outcome, count }) => [id, outcome, count])
  assert.deepEqual(list(), [
    ['c', '502', 2],
    ['b', '404', 1],
  ])
  for (const fine of [{ status: 200 }, { status: 499 }, { path: '/explain' }]) failures.record(seen('d', fine), [])
  assert.equal(failures.list().length, 2)
  failures.record(seen('e', { status: 200, isSent: false }), [])
  assert.deepEqual(list()[0], ['e', 'cut short', 1])
  for (let i = 0; i < maxFailures; i++) failures.record(seen(`${i}`, { path: `/v2/${i}` }), [])
  assert.deepEqual([failures.list().length, failures.list()[0]?.id], [maxFailures, `${maxFailures - 1}`])
})

test('the line to set if a public image shadows a private one keeps the names that are set already', () => {
  const shadowed = (upstream: string) => ({ name: 'acme/app', shadowed: { upstream, digest: '', because: '' } })
  assert.equal(remedyOf(shadowed('hosted'), ['team/**']), 'HOSTED_NAMES=team/**,acme/app')
  assert.equal(remedyOf(shadowed('hosted'), []), 'HOSTED_NAMES=acme/app')
  assert.equal(remedyOf(shadowed('proxy'), []), undefined)
  assert.equal(remedyOf({ name: 'acme/app' }, []), undefined)
})

test('the certificate is warned of within two weeks of its end, by what it is now', () => {
  const now = new Date('2026-01-01T00:00:00Z')
  const inDays = (days: number) => new Date(now.getTime() + days * 24 * 3600 * 1000)
  assert.equal(noticeOfEnd(undefined, now), undefined)
  assert.equal(noticeOfEnd(inDays(15), now), undefined)
  assert.match(noticeOfEnd(inDays(13), now)?.text ?? '', /ends in 13\sdays/)
  assert.deepEqual(noticeOfEnd(inDays(-1), now)?.level, 'bad')
  const code = 'own-certificate-ends'
  assert.deepEqual(noticesOf({ settings: [], warnings: [{ code, what: 'x', remedy: 'y', about: {} }] }), [])
})

test('a warning says what it is about, and what to do', () => {
  const about = { upstream: 'proxy', other: 'hosted', from: undefined }
  const warnings = [{ code: 'same-registry', what: 'it has the same address', remedy: 'give each its own', about }]
  assert.deepEqual(noticesOf({ settings: [], warnings }), [
    { level: 'warn', text: 'proxy: it has the same address (other hosted). Do: give each its own.' },
  ])
})

test('of settings that may hold an address, a path or a login the page says only that they are set, also of new ones', async () => {
  const of = (name: string, value: string, isSet = true) => ({ name, value, isSet })
  const table = await settingsTable({
    settings: [
      of('TAGS', '<lookup>'),
      of('SOME_NEW_SETTING', 'secret'),
      of('HOSTED_HOSTNAME', 'h:1'),
      of('LOG_LEVEL', 'info', false),
    ],
    warnings: [],
  })
  assert.match(
    `${table}`,
    /TAGS<\/th><td>&lt;lookup&gt;.*SOME_NEW_SETTING<\/th><td><i>set<\/i>.*HOSTED_HOSTNAME<\/th><td><i>set/,
  )
  assert.match(`${table}`, /Defaults: 1<.*LOG_LEVEL<\/th><td>info/s)
  assert.ok(!/secret|h:1/.test(`${table}`))
})
