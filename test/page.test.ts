/** The page at `/` as a browser gets it; on Node also in a real Chromium. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { hashSync } from 'bcryptjs'
import { between, closeAll } from './parts/between.ts'
import { findBrowser } from './parts/browser.ts'
import { certify } from './parts/certificates.ts'
import { temporaryFolder } from './parts/children.ts'
import { answerOf, digestOf, makeImage, pull, push, open as request, send, trusted } from './parts/client.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { startRouter, way } from './parts/router.ts'
import { answer, type Script } from './parts/scripted.ts'
import { until } from './parts/until.ts'

const browser = way === 'node' ? await findBrowser(console.error) : undefined
if (!browser && process.env.CI === 'true' && way === 'node') throw new Error('chromium is missing')

let hub: Registry
let cache: Registry
let hosted: Registry
const folder = temporaryFolder()
const publicImage = makeImage({ 'a.txt': 'public' })
const ownImage = makeImage({ 'a.txt': 'own' })
const users = join(folder, 'users')

before(async () => {
  const launch = await findRegistry(console.error)
  hub = await launch({ name: 'hub', folder })
  hosted = await launch({ name: 'hosted', folder })
  cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
  await push(hub.url, 'acme/app', 'latest', publicImage)
  await push(hosted.url, 'acme/app', 'latest', ownImage)
  writeFileSync(users, ['ann', 'bob'].map((user) => `${user}:${hashSync(`canary-of-${user}`, 4)}\n`).join(''))
})
after(async () => {
  await browser?.close()
  await closeAll()
  for (const registry of [hub, cache, hosted]) await registry?.stop()
})

const startReal = (environment: Record<string, string> = {}) =>
  startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, ...environment })
const Accept = 'text/html,application/xhtml+xml,*/*;q=0.8'
const open = async (url: string, image = '', headers = {}) => {
  const reply = await send(url, 'GET', `/${image && `?image=${encodeURIComponent(image)}`}`, {
    headers: { Accept, ...headers },
  })
  const html = reply.body.toString()
  const text = html
    .replace(/<style>.*<\/style>|<[^>]*>/gs, ' ')
    .replace(/&#39;/g, "'")
    .replace(/\s+/g, ' ')
  return { ...reply, html, text }
}
const basic = (login: string) => ({ Authorization: `Basic ${Buffer.from(login).toString('base64')}` })
const ok = answer(200, {}, '{"schemaVersion":2}')
const absent = answer(404, {}, '{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
/** Answers 200 at /v2/, and runs `other` everywhere else. */
const onlyPings =
  (other: Script): Script =>
  (request, ...rest) =>
    (request.url === '/v2/' ? ok : other)(request, ...rest)

test('a browser gets a page that loads nothing and runs nothing; other clients get a 404 in JSON', async () => {
  const { url, stop, odd } = await startReal()
  const { status, headers, html } = await open(url)
  assert.deepEqual([status, headers['content-type']], [200, 'text/html; charset=UTF-8'])
  const [, style = ''] = /<style>(.*)<\/style>/s.exec(html) ?? []
  const hash = createHash('sha256').update(style).digest('base64')
  const policy = `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'`
  assert.equal(headers['content-security-policy'], policy)
  assert.equal(headers['x-content-type-options'], 'nosniff')
  assert.equal(headers['referrer-policy'], 'no-referrer')
  assert.equal(headers['cache-control'], 'no-store')
  assert.ok(!/<script|<link|\ssrc=|\sstyle=|url\(/.test(html))
  for (const { host } of [hosted, cache]) assert.ok(!html.includes(host), "a registry's address")
  const head = await send(url, 'HEAD', '/', { headers: { Accept } })
  assert.deepEqual([head.status, head.body.length, head.headers['cache-control']], [200, 0, 'no-store'])
  for (const [method, headers] of [
    ['GET', {}],
    ['GET', { Accept: '*/*' }],
    ['POST', { Accept }],
  ] as const) {
    const reply = await send(url, method, '/', { headers })
    assert.deepEqual([reply.status, reply.json().errors[0].code], [404, 'UNSUPPORTED'])
  }
  assert.match((await send(url, 'GET', '/metrics')).body.toString(), /requests_total\{entity="page",method="GET"/)
  assert.deepEqual(odd(), [])
  await stop()
})

test('what was asked and sent: the page has the figures of /metrics', async () => {
  const { url, stop } = await startReal()
  await push(url, 'team/app', '1.0', ownImage)
  await pull(url, 'team/app', '1.0')
  await pull(url, 'acme/app', 'latest')
  const read = async () => (await send(url, 'GET', '/metrics')).body.toString()
  await until('all else to be counted', async () => /requests_in_flight 1$/m.test(await read()))
  const { text } = await open(url)
  const metrics = await read()
  const figure = (name: string, ...labels: string[]) => {
    const line = metrics
      .split('\n')
      .find((line) => line.includes(name) && labels.every((one) => line.includes(`"${one}"`)))
    return Number(line?.split(' ').at(-1) ?? 0)
  }
  for (const verdict of ['found', 'absent', 'denied', 'limited', 'failed']) {
    const [proxy, hosted] = ['proxy', 'hosted'].map((name) => figure('upstream_requests_total', name, verdict))
    assert.match(text, new RegExp(`${verdict}: [^:]*? ${hosted} ${proxy} `))
  }
  const pulled = ['proxy', 'hosted'].map((name) => figure('transfer_bytes_total', name, 'pull'))
  assert.ok(pulled.every((bytes) => bytes > 0))
  const formatBytes = (bytes = 0) => (bytes < 2048 ? `${bytes} B` : `${Math.round(bytes / 1024)} KiB`)
  const pushed = formatBytes(figure('transfer_bytes', 'push'))
  assert.match(text, new RegExp(`pulled ${formatBytes(pulled[1])} ${formatBytes(pulled[0])} pushed ${pushed} 0 B`))
  assert.match(text, /first byte on average \d+ ms \d+ ms/)
  await stop()
})

test('the page says in words if a registry is up, down, limited or skipped, and what this means for clients', async () => {
  const router = await between(ok, onlyPings(absent), { LOOKUP_TTL: '0' })
  const pageText = async () => (await open(router.url)).text
  const ask = () => send(router.url, 'GET', '/v2/team/app/manifests/1.0')
  assert.match(
    await pageText(),
    /Registries hosted UP 200 \d+ ms the private registry.* docker\.io UP 200 \d+ ms a pull-through cache of it/,
  )
  router.now.proxy = onlyPings(answer(429))
  await ask()
  assert.match(await pageText(), /docker\.io UP, LIMITED 200 .*: limited \(429\)\./)
  router.now.proxy = answer(503)
  for (let i = 0; i < 4; i++) await ask()
  const down = await pageText()
  assert.match(down, /docker\.io DOWN, SKIPPED 503 .* It failed three times in a row.*: failed \(503\)\./)
  assert.match(down, /Public images cannot be pulled, private ones can\..* \/v2\/ is 503 here \(V2_REQUIRES=both\)/)
  assert.match(down, /502 GET team\/app:1\.0 3 times docker\.io: failed \(503\)\. hosted: absent \(404\)/)
  assert.match(down, /502 GET team\/app:1\.0 docker\.io: failed, skipped: it failed lately\. hosted: absent \(404\)/)
  router.now.proxy = ok
  await until('the trial', async () => (await ask()).status === 200)
  assert.match(await pageText(), /docker\.io UP 200/)
  await router.close()
})

test('without a login no cause is shown that could hold an address, though hosted lets everybody read', async () => {
  const zot = answer(200, { 'WWW-Authenticate': 'Basic realm="zot"' })
  const leads = answer(307, { Location: 'http://169.254.169.254/x' })
  const router = await between(ok, (request, ...rest) => (request.url === '/v2/' ? zot : leads)(request, ...rest))
  /** Nobody knows whether it is open: it answers only those with a login. */
  const unsure: Script = (request, ...rest) => (request.headers.authorization ? ok : answer(503))(request, ...rest)
  for (const hosted of [zot, unsure, zot, ok]) {
    router.now.hosted = (request, ...rest) => (request.url === '/v2/' ? hosted : leads)(request, ...rest)
    assert.equal((await send(router.url, 'GET', '/v2/team/app/tags/list')).status, 502)
    const without = await open(router.url, '?image=team/app:1')
    assert.match(without.text, /redirects where it may not lead/)
    assert.ok(!without.text.includes('169.254'))
    // A registry that is open takes any login, so an invented one tells nothing.
    await until('hosted to be asked again', async () => {
      const { text } = await open(router.url, '', basic('ann:canary'))
      return text.includes('169.254') === (hosted === zot)
    })
  }
  await router.close()
})

test('the page says that anybody may push, if that is so', async () => {
  const refuses = answer(401, { 'WWW-Authenticate': 'Basic realm="team"' })
  const router = await between(ok, ok)
  const says = async (headers = {}) => /Open: anybody who reaches/.test((await open(router.url, '', headers)).text)
  assert.equal(await says(), true)
  assert.equal(await says(basic('ann:canary')), true, 'hosted lets in those without a login too')
  router.now.hosted = (request, ...rest) => (request.headers.authorization ? ok : refuses)(request, ...rest)
  await until('hosted to be asked again', async () => !(await says(basic('ann:canary'))))
  for (const other of [answer(200, { 'WWW-Authenticate': 'Basic realm="zot"' }), refuses]) {
    router.now.hosted = other
    await until('hosted to be asked again', async () => !(await says()))
  }
  await router.close()
  const guarded = await between(ok, ok, { HTPASSWD_FILE: users })
  assert.ok(!/Open: anybody/.test((await open(guarded.url, '', basic('ann:canary-of-ann'))).text))
  await guarded.close()
})

test('the settings in effect, what is wrong with them, and when the certificate ends; no address, no login', async () => {
  const router = await between(ok, onlyPings(answer(401)), {
    HTPASSWD_FILE: users,
    LOOKUP_ORDER: 'hosted-first',
    HOSTED_USERNAME: 'robot',
    HOSTED_PASSWORD: 'canary',
    HOSTED_NAME: 'team/**',
  })
  const { html, text } = await open(router.url, '', basic('ann:canary-of-ann'))
  assert.match(
    text,
    /A variable is nearly a setting of this router, .* \(variable HOSTED_NAME, meant HOSTED_NAMES\)\. Do: rename it/,
  )
  assert.match(text, /Settings in effect Set by variables: \d+ .* LOOKUP_ORDER hosted-first .* HOSTED_USERNAME set /)
  assert.match(text, /Defaults: \d+ .* TAGS hosted /)
  for (const secret of ['canary', 'robot', users, router.hosted.host, router.proxy.host])
    assert.ok(!html.includes(secret), secret)
  assert.ok(!text.includes('certificate'))
  await router.close()

  const own = await certify(folder, 'authority')
  const served = await certify(folder, 'served', 'IP:127.0.0.1', own)
  trusted.ca = own.cert
  const tls = await startReal({ TLS_CERT_FILE: served.certFile, TLS_KEY_FILE: served.keyFile })
  const page = await open(tls.url)
  assert.match(page.text, /Its own certificate ends \d{4}-\d\d-\d\d [\d:]+ UTC \./)
  assert.match(page.text, /This router's own certificate ends in \d+.h\. Renew it/)
  await tls.stop()
  trusted.ca = undefined
})

test('a registry that gives no answer: the page says why, in words, also of one that is skipped', async () => {
  const router = await between(ok, onlyPings(absent), { LOOKUP_TTL: '0', V2_REQUIRES: 'hosted' })
  await router.proxy.close()
  for (let i = 0; i < 4; i++) await send(router.url, 'GET', '/v2/team/app/manifests/1.0')
  const { text } = await open(router.url)
  assert.match(
    text,
    /docker\.io DOWN, SKIPPED \d+.ms a pull-through cache .* It gave no usable answer: nothing listens at its address/,
  )
  assert.match(
    text,
    /502 GET team\/app:1\.0 4 times docker\.io: failed, nothing listens at its address.*\. hosted: absent/,
  )
  await router.close()
})

test('many page views at once cost each registry one request a second', async () => {
  const router = await between(ok, ok)
  const started = performance.now()
  await Promise.all(Array.from({ length: 20 }, () => open(router.url)))
  for (let i = 0; i < 20; i++) await open(router.url)
  const seconds = Math.floor((performance.now() - started) / 1000)
  for (const { requests } of [router.proxy, router.hosted])
    assert.ok(requests.length <= 1 + seconds, `${requests.length}`)
  await router.close()
})

test("what failed lately: the last 20 requests, newest first, without what is usual in a push; a client's markup is escaped", async () => {
  const router = await between(onlyPings(absent), onlyPings(absent))
  const evil = '<script>alert(1)</script>"&'
  const ask = (path: string, method = 'GET') => send(router.url, method, `/v2/${path}`)
  assert.match((await open(router.url)).text, /What failed lately Nothing\./)
  await ask(`team/app/blobs/${digestOf('x')}`, 'HEAD')
  await ask(`team/app/referrers/${digestOf('x')}`)
  await ask(`team/app/manifests/sha256-${'a'.repeat(64)}.sig`)
  assert.match((await open(router.url)).text, /What failed lately Nothing\./)
  await ask(`team/app/manifests/${evil}`)
  await ask(`${'a'.repeat(5000)}/manifests/1`)
  const { html, text } = await open(router.url)
  assert.ok(!html.includes('<script'))
  assert.match(html, /40[04]<\/b> GET\s+\/v2\/team\/app\/manifests\/(&lt;|%3C)script/)
  assert.match(text, / \/v2\/a{596}… No registry was asked\. [\d :-]+ UTC , id /)
  router.now.hosted = onlyPings((_, response) => {
    response.writeHead(200, { 'Content-Length': 100_000 }).write('half')
  })
  const leaving = request(router.url, 'GET', `/v2/team/app/blobs/${digestOf('y')}`)
  leaving.end()
  await answerOf(leaving)
  leaving.destroy()
  router.now.hosted = onlyPings(absent)
  await until('the log', () => router.router.log().some(({ status, complete }) => status === 200 && complete === false))
  assert.match(
    (await open(router.url)).text,
    /cut short GET \/v2\/team\/app\/blobs\/.* docker\.io: absent \(404\)\. hosted: found/,
  )
  for (let i = 0; i < 25; i++) await ask(`team/app/manifests/${i}?ns=&image=x`)
  const listed = [...(await open(router.url)).html.matchAll(/<a href="(.*?)">team\/app:(\d+)</g)]
  assert.deepEqual(
    listed.map(([, , tag]) => Number(tag)),
    Array.from({ length: 20 }, (_, i) => 24 - i),
  )
  assert.equal(listed[0]?.[1], '?image=team%2Fapp%3A24#why')
  await router.close()
})

test('the form explains an image in words: which registry wins, what it shadows and why, or what a client gets if none wins', async () => {
  const { url, stop } = await startReal()
  const { text, html: shadowing } = await open(url, ' acme/app ')
  assert.match(
    text,
    /acme\/app : a client gets it from docker\.io\. This public image shadows an image of the same name in hosted\./,
  )
  assert.match(text, /set this and restart: HOSTED_NAMES=acme\/app rule/)
  assert.match(shadowing, /<div class="note warn">/)
  for (const { digest } of [publicImage, ownImage])
    assert.ok(shadowing.includes(`<code title="${digest}">${digest.slice(0, 19)}…</code>`))
  const nobody = await open(url, 'team/nobody:1')
  assert.match(nobody.text, /a client gets 404: .* A cache says 404 for a tag also if/)
  assert.match((await open(url, 'UPPER')).text, /UPPER: an image is NAME\[:TAG\] or NAME@DIGEST/)
  const { html } = await open(url, '"><script>\u0000\u001b[2J\u202e')
  for (const bad of ['<script', '\u0000', '\u001b', '\u202e']) assert.ok(!html.includes(bad))
  assert.match(html, /value="&quot;&gt;&lt;script&gt;\ufffd\ufffd\[2J\ufffd"/)
  await stop()
  const error = { code: 'DENIED', message: '<img src=x onerror=alert(1)>\u202e' }
  const router = await between(absent, onlyPings(answer(403, {}, JSON.stringify({ errors: [error] }))))
  const denied = (await open(router.url, 'team/app')).html
  assert.ok(!/<img|\u202e/.test(denied))
  assert.match(denied, /403: &lt;img/)
  await router.close()
})

test('with HTPASSWD_FILE the page needs the login of a user who may push, and a browser gets a Basic challenge', async () => {
  const { url, stop } = await startReal({ HTPASSWD_FILE: users, ANONYMOUS_PULL: 'true', PUSH_USERS: 'ann' })
  const { status, headers } = await open(url)
  assert.deepEqual([status, headers['www-authenticate']], [401, 'Basic realm="registry.example"'])
  assert.equal((await open(url, '', basic('bob:canary-of-bob'))).status, 403)
  const { status: found, html } = await open(url, '', basic('ann:canary-of-ann'))
  assert.equal(found, 200)
  assert.ok(!/canary|Y2FuYXJ5/.test(html))
  await stop()
})

test('hosted checks the logins: the page passes its challenge on; while hosted is down, it hides what other clients requested', async () => {
  let down = false
  const challenge = answer(401, { 'WWW-Authenticate': 'Basic realm="team"' })
  const router = await between(
    onlyPings(absent),
    (request, ...rest) => {
      const wellKnown = request.headers.authorization ? onlyPings(absent) : challenge
      const script = down ? answer(503) : wellKnown
      script(request, ...rest)
    },
    { LOOKUP_TTL: '0' },
  )
  const ann = basic('ann:canary')
  const refused = await open(router.url)
  assert.deepEqual([refused.status, refused.headers['www-authenticate']], [401, 'Basic realm="team"'])
  assert.equal(router.proxy.requests.length, 0)
  await send(router.url, 'GET', '/v2/team/hidden/manifests/1', { headers: ann })
  assert.match((await open(router.url, '', ann)).text, /404 GET team\/hidden:1/)
  down = true
  for (const headers of [{}, ann]) {
    const { status, text } = await open(router.url, '', headers)
    assert.equal(status, 200)
    assert.match(text, /hosted DOWN 503 .* Nothing can be pushed.* Not shown: only hosted can say whose login this is/)
    assert.ok(!text.includes('team/hidden'))
  }
  await router.close()
})

/** The text with the lowest contrast, and the brightness behind it. WCAG 2.2, "Contrast (Minimum)", wants 4.5. */
const contrast = `(() => {
  document.documentElement.style.background = 'Canvas'
  for (const one of document.querySelectorAll('details')) one.open = true
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number)
  const brightness = (color) => {
    const [r, g, b] = numbers(color).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const behind = (one) => {
    const color = getComputedStyle(one).backgroundColor
    return numbers(color)[3] === 0 ? behind(one.parentElement) : brightness(color)
  }
  const all = [...document.querySelectorAll('body *')].filter((one) => one.innerText || one.value)
  return all.map((one) => {
    const [dark, bright] = [brightness(getComputedStyle(one).color), behind(one)].sort((a, b) => a - b)
    return { contrast: (bright + 0.05) / (dark + 0.05), behind: behind(one), text: one.outerHTML.slice(0, 80) }
  }).sort((a, b) => a.contrast - b.contrast)[0]
})()`

if (way === 'node') {
  const skip = browser ? false : 'CHROMIUM IS MISSING'
  test('a person sees who wins and why, that the cache is down, on a phone too, light or dark, and logs in', {
    skip,
  }, async () => {
    const { goto, read, type, look, logIn, screenshot, prompts, complaints } = browser as NonNullable<typeof browser>
    const { url, stop } = await startReal()
    await send(url, 'GET', '/v2/team/app/manifests/2.0')
    await look(1280, 'light')
    await goto(url)
    assert.equal(await read('document.title'), 'registry.example: hosted up, docker.io up')
    await read("document.querySelector('label').click()")
    await type('acme/app\r')
    const why = await read("document.querySelector('form + .warn').innerText")
    assert.match(
      why,
      /^acme\/app: a client gets it from docker\.io\. This public image shadows .*\n+HOSTED_NAMES=acme\/app$/s,
    )
    assert.equal(await read("document.querySelector('input').value"), 'acme/app')
    const file = process.env.SCREENSHOT
    if (file) {
      await look(960, 'light', { height: 1000, scale: 1.5 })
      await read('scrollTo(0, 0)')
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, await screenshot())
    }

    await cache.stop()
    await send(url, 'GET', `/v2/${'long-name'.repeat(20)}/manifests/${'x'.repeat(100)}`)
    await until('the ping to be old', async () => {
      await goto(`${url}/?image=library/nginx`)
      return /^docker.io\s+DOWN/.test(await read("document.querySelector('.box.bad')?.innerText ?? ''"))
    })
    assert.match(
      await read("document.querySelector('.box.bad').innerText"),
      /nothing listens at its address \(ECONNREFUSED\)/,
    )
    assert.match(
      await read("document.querySelector('form + .bad').innerText"),
      /nginx: a client gets 502: the cache of docker.io (did not answer|failed lately)/,
    )
    for (const width of [1280, 390, 320]) {
      for (const scheme of ['light', 'dark'] as const) {
        await look(width, scheme)
        await goto(`${url}/?image=acme/app`)
        assert.ok((await read('document.body.innerText')).includes(ownImage.digest.slice(0, 19)))
        const least = await read(contrast)
        assert.ok(least.contrast >= 4.5, `${scheme}: ${JSON.stringify(least)}`)
        assert.ok(scheme === 'light' ? least.behind > 0.8 : least.behind < 0.2, `${scheme}: ${JSON.stringify(least)}`)
        assert.equal(await read('document.documentElement.scrollWidth'), width)
      }
    }
    assert.deepEqual([complaints, prompts], [[], []])
    await stop()

    const closed = await startReal({ HTPASSWD_FILE: users })
    await goto(closed.url)
    assert.match(await read('document.body.innerText'), /UNAUTHORIZED/)
    await logIn('ann', 'canary-of-ann')
    await goto(closed.url)
    assert.deepEqual(prompts, Array(2).fill('basic registry.example'))
    assert.equal(await read("document.querySelector('h1').innerText"), 'registry.example')
    await read("document.querySelector('input').focus()")
    await type('acme/app\r')
    assert.match(
      await read("document.querySelector('form + .good').innerText"),
      /^acme\/app: a client gets it from hosted/,
    )
    await closed.stop()
    await cache.start()
  })

  test('by keyboard all is reached, and seen to be; a screen reader has a name for each control, and headings in order', {
    skip,
  }, async () => {
    const { goto, look, tab, readAloud } = browser as NonNullable<typeof browser>
    const { url, stop } = await startReal()
    await send(url, 'GET', '/v2/team/app/manifests/2.0')
    await look(390, 'light')
    await goto(`${url}/?image=acme/app`)
    const reached: string[] = []
    for (let last = ''; last !== 'body' && reached.length < 50; ) {
      const { tag, isSeen } = await tab()
      assert.ok(isSeen || tag === 'body', tag)
      if (tag !== 'body') reached.push(tag)
      last = tag
    }
    assert.equal(reached.join(' '), 'summary summary summary summary input button a div summary summary a a')
    const spoken = await readAloud()
    assert.deepEqual(
      spoken.filter(({ name }) => !name),
      [],
    )
    const headings = spoken.filter(({ role }) => role === 'heading')
    const levels = headings.map(({ level }) => Number(level))
    assert.ok(
      levels[0] === 1 && levels.every((level, at) => at === 0 || (level > 1 && level <= (levels[at - 1] ?? 0) + 1)),
    )
    assert.deepEqual(
      headings.filter(({ level }) => level === 3).map(({ name }) => name),
      ['hosted', 'docker.io'],
    )
    assert.ok(spoken.some(({ role, name }) => role === 'textbox' && name === 'Image'))
    await stop()
  })
}
