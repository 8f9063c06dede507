/** Several public registries behind one router (PROXIES), with scripted upstreams. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { type Between, between, closeAll } from './parts/between.ts'
import { noPrivateName, noSecret } from './parts/canary.ts'
import { digestOf, send } from './parts/client.ts'
import { answer, type Script, type Scripted, scripted } from './parts/scripted.ts'
import { until } from './parts/until.ts'

after(closeAll)

const layer = 'the layer'
const digest = digestOf(layer)
const manifest = '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}'
const absent = answer(404)

/** Has everything that is asked below `name`, and nothing else. */
const having =
  (name: string): Script =>
  (request, response, recorded) => {
    const { url = '' } = request
    if (url === '/v2/') return answer(200, {}, '{}')(request, response, recorded)
    if (!url.startsWith(`/v2/${name}/`)) return absent(request, response, recorded)
    const content = url.includes('/blobs/')
      ? layer
      : url.includes('/tags/')
        ? '{"name":"x","tags":["1"]}'
        : url.includes('/referrers/')
          ? '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
          : manifest
    const link = url.includes('/tags/') ? { Link: `</v2/${name}/tags/list?last=1>; rel="next"` } : {}
    answer(200, { 'Content-Length': content.length, ...link }, content)(request, response, recorded)
  }

/** No public registry gets a client's login, a private name, or `ns`. */
const tapped =
  (script: Script): Script =>
  (request, response, recorded) => {
    noSecret('a request to a public registry', JSON.stringify(recorded))
    noPrivateName('a request to a public registry', JSON.stringify(recorded))
    assert.doesNotMatch(`${request.url}`, /ns=/)
    script(request, response, recorded)
  }

interface Several extends Between {
  ghcr: Scripted
  quay: Scripted
}

/** ghcr.io and quay.io beside the default public registry and hosted; `use` gets them, then all are stopped. */
async function withSeveral(
  scripts: { proxy?: Script; hosted?: Script; ghcr?: Script; quay?: Script },
  environment: Record<string, string>,
  use: (several: Several) => Promise<void>,
): Promise<void> {
  const ghcr = await scripted(tapped(scripts.ghcr ?? having('org/app')))
  const quay = await scripted(tapped(scripts.quay ?? having('team/tool')))
  const PROXIES = `ghcr.io=${ghcr.host} quay.io=http://${quay.host}`
  const router = await between(scripts.proxy ?? having('library/hello'), scripts.hosted ?? absent, {
    PROXIES,
    ...environment,
  })
  try {
    await use({ ...router, ghcr, quay })
    await router.close()
  } finally {
    await ghcr.close()
    await quay.close()
  }
}

/** What each of them was asked since the last call: `who METHOD target`. */
function asked({ proxy, hosted, ghcr, quay }: Several): string[] {
  const all = Object.entries({ proxy, hosted, ghcr, quay })
  return all.flatMap(([who, { requests }]) =>
    requests.splice(0).map(({ method, target }) => `${who} ${method} ${target}`),
  )
}

test('a name with the host of a public registry before it is asked only there, without it; ns does the same', async () => {
  await withSeveral({}, {}, async (several) => {
    const rest = ['manifests/1', `blobs/${digest}`, 'tags/list', `referrers/${digestOf(manifest)}`]
    for (const path of rest) {
      for (const [name, query] of [
        ['ghcr.io/org/app', ''],
        ['org/app', '?ns=ghcr.io'],
        ['ghcr.io/org/app', '?ns=ghcr.io'],
      ]) {
        const { status, headers } = await send(several.url, 'GET', `/v2/${name}/${path}${query}`)
        assert.equal(status, 200, path)
        assert.equal(headers['oci-namespace'], query ? 'ghcr.io' : undefined)
        const next = query ? `?last=1&${query.slice(1)}` : '?last=1'
        if (path === 'tags/list') assert.equal(headers.link, `</v2/${name}/${path}${next}>; rel="next"`)
        const who = asked(several)
        assert.ok(who.length > 0 || path !== 'tags/list', 'memory may answer for the same name')
        for (const one of who) assert.equal(one, `ghcr GET /v2/org/app/${path}`)
      }
    }
    assert.equal((await send(several.url, 'HEAD', `/v2/ghcr.io/org/app/blobs/${digest}`)).status, 200)
    assert.deepEqual(asked(several), [`ghcr HEAD /v2/org/app/blobs/${digest}`])
  })
})

test('the pages of a list are asked for as the first one was: none comes from hosted', async () => {
  const pages: Script = (request, ...rest) => {
    const page = request.url?.includes('last=') ? 2 : 1
    const link = page === 1 ? { Link: `<${request.url?.replace(/\?.*/, '')}?n=1&last=1>; rel="next"` } : {}
    answer(200, { 'Content-Type': 'application/json', ...link }, `{"tags":["${page}"]}`)(request, ...rest)
  }
  await withSeveral({ proxy: pages, ghcr: pages }, {}, async (several) => {
    for (const [first, who] of [
      ['/v2/docker.io/team/app/tags/list?n=1', 'proxy GET /v2/team/app/tags/list?n=1'],
      ['/v2/team/app/tags/list?n=1&ns=docker.io', 'proxy GET /v2/team/app/tags/list?n=1'],
      ['/v2/ghcr.io/org/app/tags/list?n=1', 'ghcr GET /v2/org/app/tags/list?n=1'],
      ['/v2/org/app/tags/list?ns=ghcr.io&n=1', 'ghcr GET /v2/org/app/tags/list?n=1'],
    ] as const) {
      const link = `${(await send(several.url, 'GET', first)).headers.link}`
      const [, next = ''] = /^<(.*)>; rel="next"$/.exec(link) ?? []
      assert.deepEqual((await send(several.url, 'GET', next)).json(), { tags: ['2'] }, next)
      assert.deepEqual(asked(several), [who, `${who}&last=1`], next)
    }
  })
})

/** What clients send for `ghcr.io/org/app:1`, by their own documentation. */
const forms: [client: string, target: string][] = [
  ['containerd with hosts.toml for ghcr.io or _default, Talos, docker 29', '/v2/org/app/manifests/1?ns=ghcr.io'],
  ['containerd with override_path, k3s and RKE2 with a rewrite', '/v2/ghcr.io/org/app/manifests/1?ns=ghcr.io'],
  ['podman, CRI-O, skopeo with a prefix, and names written by hand', '/v2/ghcr.io/org/app/manifests/1'],
]
/** The same for `docker.io/library/hello:1`. */
const formsOfHub: typeof forms = [
  ['dockerd with registry-mirrors', '/v2/library/hello/manifests/1'],
  ['BuildKit with a mirror HOST/docker.io', '/v2/docker.io/library/hello/manifests/1?ns=docker.io'],
  ['containerd', '/v2/library/hello/manifests/1?ns=docker.io'],
  ['an older name', '/v2/registry-1.docker.io/library/hello/manifests/1'],
]
test('each form in which clients name an image leads to its registry, and no login goes there', async () => {
  await withSeveral({}, {}, async (several) => {
    const headers = { Authorization: 'Basic canary-password', Cookie: 'canary-password' }
    for (const [rows, who] of [
      [forms, 'ghcr GET /v2/org/app/manifests/1'],
      [formsOfHub, 'proxy GET /v2/library/hello/manifests/1'],
    ] as const) {
      for (const [client, target] of rows) {
        assert.equal((await send(several.url, 'GET', target, { headers })).status, 200, client)
        assert.ok(asked(several).every((one) => one === who))
      }
    }
  })
})

test('what no registry serves is 404 and named; a push to a name of a public registry is 405 and says what to do', async () => {
  await withSeveral({}, {}, async (several) => {
    const unknown = await send(several.url, 'GET', '/v2/org/app/manifests/1?ns=gcr.io')
    assert.deepEqual([unknown.status, unknown.json().errors[0].code], [404, 'NAME_UNKNOWN'])
    assert.match(unknown.json().errors[0].message, /gcr\.io/)
    for (const [method, path] of [
      ['PUT', 'manifests/1'],
      ['POST', 'blobs/uploads/'],
      ['DELETE', `manifests/${digest}`],
    ] as const) {
      for (const target of [`/v2/ghcr.io/org/app/${path}`, `/v2/org/app/${path}?ns=ghcr.io`]) {
        const { status, headers, json } = await send(several.url, method, target)
        assert.deepEqual([status, headers.allow], [405, 'GET, HEAD'])
        assert.match(json().errors[0].message, /ghcr\.io is read-only here: copy the image to a name of your own/)
      }
    }
    assert.deepEqual(asked(several), [])
  })
})

test('the same name at two registries is two images, for memory too', async () => {
  const other = manifest.replace('[]', '[ ]')
  const both = (content: string) => answer(200, { 'Content-Length': content.length }, content)
  await withSeveral({ ghcr: both(manifest), quay: both(other), proxy: both(other) }, {}, async ({ url }) => {
    for (let round = 0; round < 2; round++) {
      for (const [path, wanted] of [
        ['/v2/ghcr.io/a/b/manifests/1', manifest],
        ['/v2/quay.io/a/b/manifests/1', other],
        ['/v2/a/b/manifests/1?ns=ghcr.io', manifest],
        ['/v2/a/b/manifests/1?ns=quay.io', other],
        ['/v2/a/b/manifests/1', other],
      ] as const)
        assert.equal((await send(url, 'GET', path)).body.toString(), wanted, path)
    }
  })
})

test('a public registry that is dead, or limits, harms no other; the health check names each', async () => {
  const limits = answer(429, { 'Retry-After': '7' })
  await withSeveral({ quay: limits }, {}, async (several) => {
    await several.ghcr.close()
    for (let round = 0; round < 4; round++) {
      assert.equal((await send(several.url, 'GET', '/v2/ghcr.io/org/app/manifests/1')).status, 502)
      const { status, headers } = await send(several.url, 'GET', '/v2/quay.io/team/tool/manifests/1')
      assert.deepEqual([status, headers['retry-after']], [429, '7'])
      assert.equal((await send(several.url, 'GET', '/v2/library/hello/manifests/1')).status, 200)
    }
    const { status, json } = await send(several.url, 'GET', '/healthcheck')
    assert.equal(status, 503, 'hosted says 404 to /v2/')
    assert.deepEqual(json(), { proxy: 200, hosted: 404, 'ghcr.io': 502, 'quay.io': 429 })
    const metrics = (await send(several.url, 'GET', '/metrics')).body.toString()
    assert.match(metrics, /upstream_skipped\{upstream="ghcr.io"\} 1/)
    assert.match(metrics, /upstream_skipped\{upstream="proxy"\} 0/)
    const page = await send(several.url, 'GET', '/', { headers: { Accept: 'text/html' } })
    assert.match(page.body.toString(), /<h3>ghcr\.io<\/h3>\s+<p class="state"><b>DOWN, SKIPPED<\/b>/)
  })
})

test('only the private and the default public registry decide the health check and /v2/', async () => {
  const up = answer(200, {}, '{}')
  await withSeveral({ hosted: up, proxy: up, ghcr: answer(500) }, {}, async ({ url }) => {
    const { status, json } = await send(url, 'GET', '/healthcheck')
    assert.deepEqual([status, json()], [200, { proxy: 200, hosted: 200, 'ghcr.io': 500, 'quay.io': 200 }])
    assert.equal((await send(url, 'GET', '/v2/')).status, 200)
  })
})

test('a layer of a public registry is mounted into hosted: copied, with nothing uploaded', async () => {
  const stored: string[] = []
  const hosted: Script = (request, response, recorded) => {
    if (request.method === 'POST')
      return answer(202, { Location: '/v2/team/new/blobs/uploads/1' })(request, response, recorded)
    if (request.method !== 'PUT') return absent(request, response, recorded)
    request.on('data', (chunk) => stored.push(`${chunk}`))
    answer(201)(request, response, recorded)
  }
  await withSeveral({ hosted }, {}, async (several) => {
    const from = `/v2/team/new/blobs/uploads/?mount=${digest}&from=ghcr.io/org/app`
    assert.equal((await send(several.url, 'POST', from)).status, 201)
    assert.equal(stored.join(''), layer)
    assert.ok(asked(several).includes(`ghcr GET /v2/org/app/blobs/${digest}`))
  })
})

test('the pages of an official image, by its short name, are asked for as the first one was', async () => {
  const pages: Script = (request, ...rest) => {
    const { url = '' } = request
    const link = url.includes('last=') ? {} : { Link: '</v2/library/hello/tags/list?n=1&last=1>; rel="next"' }
    const list = answer(200, { 'Content-Type': 'application/json', ...link }, '{"tags":["1"]}')
    ;(url.startsWith('/v2/library/hello/') ? list : absent)(request, ...rest)
  }
  await withSeveral({ proxy: pages, hosted: pages }, {}, async (several) => {
    for (const first of ['/v2/docker.io/hello/tags/list?n=1', '/v2/hello/tags/list?n=1&ns=docker.io']) {
      const [, next = ''] = /^<(.*)>/.exec(`${(await send(several.url, 'GET', first)).headers.link}`) ?? []
      assert.equal((await send(several.url, 'GET', next)).status, 200, next)
      assert.ok(asked(several).every((one) => one.startsWith('proxy ')))
    }
  })
})

test('PROXY_NAMES=library/*: referrers of a short name are those of hosted and of the official image', async () => {
  const path = `/v2/hello/referrers/${digestOf(manifest)}`
  await withSeveral({ hosted: having('hello') }, { PROXY_NAMES: 'library/*' }, async (several) => {
    assert.deepEqual((await send(several.url, 'GET', path)).json().manifests, [])
    const targets = asked(several)
    assert.ok(targets.includes(`proxy GET ${path.replace('hello', 'library/hello')}`))
    assert.ok(!targets.includes(`proxy GET ${path}`), 'what PROXY_NAMES does not list is not asked for')
    several.now.proxy = answer(503)
    assert.equal((await send(several.url, 'GET', path)).status, 502, 'no shorter list')
    several.now.hosted = absent
    assert.equal((await send(several.url, 'GET', path)).status, 404, 'hosted has no API: its clients look for a tag')
  })
})

test('a cache of several hosts hears in each question about referrers which one is meant', async () => {
  const subject = digestOf(manifest)
  const referrer = { digest: digestOf('a signature') }
  const list = JSON.stringify({ schemaVersion: 2, manifests: [referrer] })
  const next = { Link: `</v2/org/app/referrers/${subject}?last=b>; rel="next"` }
  for (const api of [true, false]) {
    const cache: Script = (...given) => {
      const { url = '' } = given[0]
      if (!url.includes('ns=ghcr.io')) return absent(...given)
      const isList = url.includes('/referrers/') ? api : url.includes('/manifests/sha256-')
      ;(isList ? answer(200, url.includes('last=') || !api ? {} : next, list) : absent)(...given)
    }
    const router = await between(cache, absent, { PROXY_NS: 'docker.io,ghcr.io' })
    const { status, json } = await send(router.url, 'GET', `/v2/org/app/referrers/${subject}?ns=ghcr.io`)
    assert.deepEqual([status, json().manifests], [200, [referrer]])
    await router.close()
  }
})

test('an official image of Docker Hub is found by its short name, unless hosted has one of that name', async () => {
  await withSeveral({}, {}, async (several) => {
    const { status, headers } = await send(several.url, 'GET', '/v2/hello/manifests/1')
    assert.equal(status, 200)
    assert.deepEqual(asked(several), [
      'proxy GET /v2/hello/manifests/1',
      'proxy GET /v2/library/hello/manifests/1',
      'hosted GET /v2/hello/manifests/1',
    ])
    assert.equal((await send(several.url, 'GET', `/v2/hello/blobs/${digest}`)).status, 200)
    assert.deepEqual(
      asked(several),
      [`proxy GET /v2/library/hello/blobs/${digest}`],
      'asked at once: it was read before',
    )
    assert.ok(headers['docker-distribution-api-version'])
    several.now.hosted = having('hello')
    assert.equal((await send(several.url, 'GET', '/v2/hello/manifests/2')).status, 200)
    assert.ok(!asked(several).some((one) => one.includes('library/hello')))
  })
})

test('an official image is not looked for while hosted, or the public registry, may have the short name', async () => {
  for (const [proxy, hosted, wanted] of [
    [having('library/hello'), answer(500), 502],
    [answer(503), absent, 502],
    [having('library/other'), absent, 404],
  ] as const) {
    await withSeveral({ proxy, hosted }, {}, async ({ url }) => {
      assert.equal((await send(url, 'GET', '/v2/hello/manifests/1')).status, wanted)
    })
  }
})

test('an official image is known by its short name to a mount, to HEAD of its layers, and to its referrers', async () => {
  const stored: string[] = []
  const uploads: Script = (request, response, recorded) => {
    if (request.method === 'POST')
      return answer(202, { Location: '/v2/team/new/blobs/uploads/1' })(request, response, recorded)
    if (request.url?.includes('/referrers/')) return having('hello')(request, response, recorded)
    if (request.method !== 'PUT') return absent(request, response, recorded)
    request.on('data', (chunk) => stored.push(`${chunk}`))
    answer(201)(request, response, recorded)
  }
  const referrer = { digest: digestOf('a signature') }
  const hub: Script = (...given) => {
    const { url = '' } = given[0]
    const list = answer(200, {}, JSON.stringify({ schemaVersion: 2, manifests: [referrer] }))
    return (url.startsWith('/v2/library/hello/referrers/') ? list : having('library/hello'))(...given)
  }
  await withSeveral({ proxy: hub, hosted: uploads }, { PROXY_NAMES: 'library/*' }, async (several) => {
    const mount = `/v2/team/new/blobs/uploads/?mount=${digest}&from=hello`
    assert.equal((await send(several.url, 'POST', mount)).status, 201)
    assert.equal(stored.splice(0).join(''), layer)
  })
  await withSeveral({ proxy: hub, hosted: uploads }, {}, async (several) => {
    for (const from of ['hello', 'docker.io/hello', 'library/hello']) {
      const mount = `/v2/team/new/blobs/uploads/?mount=${digest}&from=${from}`
      assert.equal((await send(several.url, 'POST', mount)).status, 201, from)
      assert.equal(stored.splice(0).join(''), layer)
      assert.ok(asked(several).includes(`proxy GET /v2/library/hello/blobs/${digest}`))
    }
    const blob = `/v2/hello/blobs/${digest}`
    assert.equal((await send(several.url, 'HEAD', blob)).status, 404, 'nobody has read it')
    await send(several.url, 'GET', '/v2/hello/manifests/1')
    assert.equal((await send(several.url, 'HEAD', blob)).status, 200)
    const list = await send(several.url, 'GET', `/v2/hello/referrers/${digestOf(manifest)}`)
    assert.deepEqual([list.status, list.json().manifests], [200, [referrer]])
    assert.equal((await send(several.url, 'POST', '/v2/hello/blobs/uploads/')).status, 202)
    assert.equal((await send(several.url, 'HEAD', blob)).status, 404, 'somebody pushes to it')
  })
})

test('referrers of one public registry: its list, or the one under the tag; never a shorter one', async () => {
  const subject = digestOf(manifest)
  const referrer = { digest: digestOf('a signature') }
  const list = JSON.stringify({ schemaVersion: 2, manifests: [referrer] })
  const json = { 'Content-Type': 'application/json' }
  const inner = { Link: '<http://nexus.internal:8081/repository/x/v2/org/app/referrers/x?page=2>; rel="next"' }
  const denied = answer(403, json, '{"errors":[{"code":"DENIED"}]}')
  const page: Script = (...given) => answer(200, given[0].url?.includes('page=2') ? {} : inner, list)(...given)
  /** What the registry says to the API and to the tag, and the status for the client. */
  const rows: [string, Script, Script, number][] = [
    ['a list of two pages', page, absent, 200],
    ['no API, a tag', absent, answer(200, {}, list), 200],
    ['no API, no tag', absent, absent, 404],
    ['an error with 200', answer(200, json, '{"errors":[]}'), absent, 502],
    ['nothing with 200', answer(200, { 'Content-Length': 0 }), absent, 502],
    ['no API, and it says 405', answer(405), absent, 404],
    ['it denies the referrers of what it gives', denied, denied, 502],
  ]
  let saying: Script = absent
  const ghcr: Script = (...given) => saying(...given)
  await withSeveral({ ghcr, hosted: ghcr }, { HOSTED_NAMES: 'team/**' }, async (several) => {
    const names = ['ghcr.io/org/app/referrers/D', 'org/app/referrers/D?ns=ghcr.io', 'team/app/referrers/D']
    for (const [what, api, tag, wanted] of rows) {
      saying = (...given) => {
        const { url = '' } = given[0]
        const isTag = url.includes(`/manifests/${subject.replace(':', '-')}`)
        return (url.includes('/referrers/') ? api : isTag ? tag : having('org/app'))(...given)
      }
      for (const name of names) {
        const { status, headers, json } = await send(several.url, 'GET', `/v2/${name.replace('D', subject)}`)
        const isPublic = !name.startsWith('team/')
        // Of hosted's own a client looks for the tag itself.
        const passed = { 'it denies the referrers of what it gives': 403, 'no API, and it says 405': 405 }[what]
        const ofHosted = passed ?? (what.startsWith('no API') ? 404 : wanted)
        assert.equal(status, isPublic ? wanted : ofHosted, `${what}: ${name}`)
        if (status === 200) assert.deepEqual(json().manifests, [referrer])
        assert.doesNotMatch(`${headers.link}`, /internal/)
      }
    }
  })
})

test('the log names the registry and what it was asked', async () => {
  await withSeveral({}, {}, async ({ url, router }) => {
    await send(url, 'GET', '/v2/ghcr.io/org/app/manifests/1')
    const line = await until('the line', () => router.log().find(({ name }) => name === 'ghcr.io/org/app'))
    assert.deepEqual([line.by, (line.asked as { upstream: string }[])[0]?.upstream], ['ghcr.io', 'ghcr.io'])
    const explained = (await send(url, 'GET', '/explain?image=ghcr.io/org/app:1')).json()
    assert.deepEqual([explained.order, explained.answer.by], [['ghcr.io'], 'ghcr.io'])
  })
})
