/** What a stranger's or a registry's bytes cost the router: a time that grows with their length, whatever they are. */
import assert from 'node:assert/strict'
import process from 'node:process'
import { test } from 'node:test'
import { match } from '../routing.ts'
import { clientAddress } from '../src/access/client.ts'
import { clean } from '../src/log.ts'
import { accepts } from '../src/memory/reading.ts'
import { parseChallenges } from '../src/registry/challenge.ts'
import { Globs } from '../src/registry/globs.ts'
import { type Mapping, ownPath, requestFields, responseFields } from '../src/registry/headers.ts'
import { json } from '../src/registry/json.ts'
import { linksOfList, nextQuery } from '../src/registry/links.ts'
import { pathHere, scopesHere, tagsHere, tokenQueryThere } from '../src/registry/names.ts'
import { isEmptyList, isManifest, verdictOfTags } from '../src/registry/verdict.ts'
import { type PlanRules, planOf } from '../src/relay/plan.ts'
import { faultOfHead } from '../src/runtime/head.ts'
import { Networks } from '../src/runtime/networks.ts'

/** Fails if a work takes the processor longer, five times in a row: other threads and the compiler count too. */
function costsAtMost(limitMs: number, work: () => unknown, what = ''): void {
  const times: number[] = []
  while (times.length < 5) {
    const before = process.cpuUsage()
    work()
    const { user, system } = process.cpuUsage(before)
    const milliseconds = (user + system) / 1000
    if (milliseconds < limitMs) return
    times.push(milliseconds)
  }
  assert.fail(`${times.join(', ')} ms, not ${limitMs}: ${what}`)
}

/** `text` again and again, up to a length. */
const filled = (text: string, length: number) => text.repeat(Math.floor(length / text.length))

const aggregate = new URL('https://registry.example')
const rules: PlanRules = {
  aggregate,
  hostedNames: new Globs([]),
  proxyNames: new Globs(['**']),
  proxyNs: ['docker.io'],
  hostedNs: [],
  proxies: [],
  tags: 'hosted',
  lookupOrder: 'proxy-first',
}
const tag = match('GET', '/v2/a/manifests/1')
const trust = { role: 'hosted', forwardsLogin: true, router: aggregate } as const
const mapping: Mapping = {
  forwardsLogin: true,
  pathHere: (path) => pathHere(path, '/here', ''),
  sessionHere: () => undefined,
  realmHere: () => 'x',
  scopesHere: (scopes) => scopesHere(scopes, '/here'),
}
const networks = new Networks(['10.0.0.0/8', '::/0'])
const headers = (name: string, value: string) => new Headers({ [name]: value })

/** What is done with a text, what the text may begin with, and what it goes on with. */
const fields: [string, (text: string) => unknown, string[], string[]][] = [
  [
    'a path',
    (text) => [match('GET', text), match('PUT', text)],
    ['/v2/', '/v2/a/manifests/', '/v2/a/blobs/', '/v2/a/blobs/uploads/'],
    ['a', 'a-', 'a--', 'a__', 'a.', 'a/', '-', '/', '%3A', ':', '/manifests/', '/blobs/', 'sha256:', '/v2/'],
  ],
  [
    'a query',
    (text) => 'route' in tag && planOf(rules, 'GET', tag, text),
    ['?', '?ns='],
    ['ns=&', 'ns=docker.io&', 'ns=a.', '&', '%&', 'a&', '%', '+', '=', 'a'],
  ],
  [
    'Accept',
    (accept) => accepts({ accept }, 'application/vnd.oci.image.manifest.v1+json'),
    ['', 'a;'],
    ['a,', ';', ',', ' ,', ' ', 'a;a,'],
  ],
  [
    'Connection',
    (text) => requestFields({ method: 'PUT', headers: headers('Connection', text) }, {}, trust),
    ['a'],
    ['a,', ',', ' ', 'a', ' ,'],
  ],
  [
    'X-Forwarded-For',
    (text) => clientAddress('10.0.0.1', text, networks),
    ['', '::'],
    ['1', '1.', ',10.0.0.1', ',::1', ',[::1]:1', '[', ':', ',', ' ', ',::ffff:10.0.0.1'],
  ],
  [
    'Transfer-Encoding',
    (text) => faultOfHead({ rawHeaders: ['Transfer-Encoding', text], httpVersion: '1.1' }),
    [''],
    [' ', 'chunked', ',', 'c'],
  ],
  [
    'WWW-Authenticate',
    (text) => [parseChallenges(text), responseFields(401, headers('WWW-Authenticate', text), mapping)],
    ['', 'Bearer ', 'Bearer realm="'],
    ['a', 'a,', '"', '\\', '\\"', '"a",', 'a="b",', 'a=', 'realm="', 'realm="\\', 'Bearer ', ' ', ', ', '='],
  ],
  [
    'the scopes of a token',
    (text) => [scopesHere(text, '/here'), tokenQueryThere(`scope=${text}`, '/here')],
    ['', 'repository:', 'repository('],
    [
      'a',
      'a:',
      ':',
      ' ',
      'repository:',
      'repository(',
      'repository():',
      'repository:a:pull ',
      '(',
      '&',
      '&a',
      '%',
      '+',
    ],
  ],
  [
    'Link',
    (text) => [
      nextQuery(text),
      linksOfList(text, '/v2/a/tags/list', ownPath),
      responseFields(200, headers('Link', text), mapping),
    ],
    ['x', '<a>; rel="', '<a>;'],
    [
      '<',
      '>',
      '<a>,',
      '<a>;rel=next,',
      ';',
      '; ',
      '; rel=',
      ';rel="',
      ' ',
      ',',
      '"',
      '?',
      '<http://h/v2/a/tags/list>,',
    ],
  ],
  [
    'Location',
    (text) => responseFields(202, headers('Location', text), mapping),
    ['http://h/v2/', '//h', '/v2/a/blobs/uploads/'],
    ['/', '?', '#', '%3A', 'a-', 'a/', '/blobs/uploads/', 'http://'],
  ],
  ['text on the page', clean, [''], ['a', '\u0000', '\ud800', ' ', '😀']],
]
const fieldBytes = 131_072
for (const [what, work, beginnings, parts] of fields) {
  test(`${what}: 4 µs a byte at most`, () => {
    for (const begin of beginnings) {
      for (const part of parts) {
        for (const end of ['', '!']) {
          const text = begin + filled(part, fieldBytes) + end
          costsAtMost(fieldBytes * 0.004, () => work(text), `${begin}${part}…${end}`)
        }
      }
    }
  })
}

const bodyBytes = 4 * 1024 * 1024
const bodies: Record<string, string> = {
  lists: filled('[', bodyBytes),
  objects: filled('{"a":', bodyBytes),
  'empty lists': `{"tags":[${filled('[],', bodyBytes)}[]]}`,
  'empty objects': `{"layers":[${filled('{},', bodyBytes)}{}]}`,
  numbers: `{"layers":[${filled('1,', bodyBytes)}1]}`,
  members: `{${Array.from({ length: bodyBytes / 12 }, (_, i) => `"k${i}":1`)}}`,
  'quotes in a text': `{"layers":"${filled('\\"', bodyBytes)}"}`,
  'a text without an end': `{"layers":"${filled('\\\\', bodyBytes)}`,
  'a number of 4 MiB': filled('1', bodyBytes),
  space: filled(' ', bodyBytes),
  'names and space': filled(`"name"${' '.repeat(1000)}`, bodyBytes),
}
for (const [what, text] of Object.entries(bodies)) {
  const tagged = (bytes: Uint8Array) => tagsHere(bytes, '/here', '/v2/a/tags/list')
  test(`4 MiB of ${what}: 0.06 µs a byte at most, as manifest, as tag list and as JSON`, () => {
    const bytes = new TextEncoder().encode(text)
    const judged = [
      (read: Uint8Array) => isManifest(read, undefined),
      verdictOfTags,
      (read: Uint8Array) => isEmptyList(read, ''),
    ]
    for (const read of [...judged, json, tagged]) {
      costsAtMost(bodyBytes * 0.00006, () => read(bytes))
    }
  })
}

test('a name of 254 characters and a glob of many stars: 5 ms at most', () => {
  const globs = new Globs(['**a**a**a**b', '*a*a*a*a*a*a*b', '**/*a*/**a*/b'])
  for (const name of ['a'.repeat(254), 'a/'.repeat(127)]) {
    assert.ok(!globs.has(name))
    costsAtMost(5, () => globs.has(name))
  }
})

const manifests: [string, boolean][] = [
  ['{"schemaVersion":2}', true],
  [' \n{ "layers" : [ ] }\n', true],
  ['\ufeff{"config":{}}', true],
  ['{"a":{"layers":[]},"b":"config"}', false],
  ['{"a":"\\"config\\":1"}', false],
  ['{"schemaVersion":2', false],
  ['{"schemaVersion":2}}', false],
  ['{"schemaVersion":2}{}', false],
  ['{"schemaVersion":"2}', false],
  ['[{"schemaVersion":2}]', false],
  ['"schemaVersion":2', false],
  ['{}', false],
  ['', false],
]
for (const [text, wanted] of manifests) {
  test(`${JSON.stringify(text)} ${wanted ? 'looks like' : 'is no'} manifest`, () =>
    assert.equal(isManifest(new TextEncoder().encode(text), undefined), wanted))
}

test('JSON is read up to 100 levels, whatever is in its texts', () => {
  const read = (text: string) => json(new TextEncoder().encode(text))
  const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)
  assert.ok(Array.isArray(read(nested(100))))
  assert.equal(read(nested(101)), undefined)
  const text = '[{'.repeat(200)
  assert.deepEqual(read(JSON.stringify({ text, quoted: `"\\${text}` })), { text, quoted: `"\\${text}` })
  assert.equal(read('no'), undefined)
  assert.equal(json(undefined), undefined)
})
