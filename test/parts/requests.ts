/** Random requests for property tests: valid ones, ones with a slightly wrong part, and noise. */
import fc from 'fast-check'

const hex = fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 64, maxLength: 64 })
const word = fc.constantFrom(
  'a',
  'team',
  'blobs',
  'uploads',
  'manifests',
  'tags',
  'list',
  'referrers',
  '_catalog',
  'v2',
  'x-y',
)
const odd = fc.constantFrom(
  ...[
    '..',
    '.',
    '',
    '%2e%2e',
    '..%2f',
    '%2f',
    '%5c',
    '%00',
    '%',
    '%zz',
    '%3A',
    ':',
    'A',
    '_',
    '-',
    'a__b',
    'a..b',
    '*',
  ],
  ...['a%20b', '~', ';', '@', '\\', 'é', '%C3%A9', 'a'.repeat(300), 'sha256:', 'sha256:abc', '#', '?', '&', 'latest'],
)
const digest = fc.oneof(
  hex.map((value) => `sha256:${value}`),
  hex.map((value) => `sha256%3A${value}`),
  hex.map((value) => `sha256-${value}`),
  hex.map((value) => `sha512:${value}${value}`),
)
const segment = fc.oneof(
  { weight: 6, arbitrary: word },
  { weight: 2, arbitrary: digest },
  { weight: 2, arbitrary: odd },
)
const structured = fc
  .tuple(fc.constantFrom('/v2/', '/v2/', '/v2/', '/v2', '/', '//v2/', '/v1/'), fc.array(segment, { maxLength: 7 }))
  .map(([start, segments]) => start + segments.join('/'))
const ending = fc.constantFrom('tags/list', 'blobs/uploads/', 'blobs/uploads/1a', 'manifests/1.0', '_catalog')
const valid = fc
  .tuple(
    fc.array(word, { minLength: 1, maxLength: 4 }),
    fc.oneof(
      ending,
      digest.map((value) => `blobs/${value}`),
    ),
  )
  .map(([name, end]) => `/v2/${name.join('/')}/${end}`)
const noise = fc.string({ maxLength: 60 }).map((text) => `/v2/${text}`)

/** A random request target. */
export const path = fc.oneof(
  { weight: 4, arbitrary: structured },
  { weight: 3, arbitrary: valid },
  { weight: 1, arbitrary: noise },
)
export const method = fc.constantFrom('GET', 'GET', 'HEAD', 'PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS')

/** The only paths that may reach an upstream. Not built from the patterns of `routing.ts`, so a mistake there shows. */
export const allowed = new RegExp(
  [
    '^/v2/(?:_catalog|',
    '(?:[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*/)+',
    '(?:tags/list|blobs/uploads/[A-Za-z0-9._=~-]*|(?:manifests|blobs|referrers)/[A-Za-z0-9_][A-Za-z0-9._+=:-]*(?:%3[Aa][A-Za-z0-9=_-]+)?)',
    ')?$',
  ].join(''),
)
