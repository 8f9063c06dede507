/** What a browser gets at `/`: the registries now, where an image comes from, what failed lately. */
import { createHash } from 'node:crypto'
import { html, raw } from 'hono/html'
import type { Match } from '../../routing.ts'
import { clean } from '../log.ts'
import { type Answer, isUp, type Summary, skipReason } from '../registry/answer.ts'
import { verdicts } from '../registry/verdict.ts'
import { type Explanation, factsOf } from '../relay/explain.ts'
import type { Metrics } from './metrics.ts'

/** A request that was answered. */
interface Seen {
  method: string
  path: string
  query: string
  matched?: Match
  status: number
  /** What each registry said. */
  asked?: Summary[]
  /** Whether the whole answer was sent. */
  isSent: boolean
  hasLogin: boolean
}

/** What the page shows now. */
interface View {
  /** What each registry says to `/v2/`. */
  pings: readonly Answer[]
  image: string
  explanation?: Explanation | { refused: number; message: string }
  /** Whether whoever looks may know which names others ask for. */
  isTrusted: boolean
  /** Whether anybody may push, as far as a client without a login sees. */
  isOpen: boolean
}

export interface PageSettings {
  /** This router's public address. */
  aggregate: URL
  v2Requires: 'both' | 'hosted'
}

const maxFailures = 20
/** What each is, and what is lost with it. */
const about: Record<string, readonly [string, string]> = {
  proxy: ['the pull-through cache', 'Public images cannot be pulled, private ones can.'],
  hosted: ['the private registry', 'Nothing can be pushed, and private images cannot be pulled.'],
}
const aboutOthers = ['a public registry, or a cache of it', 'Its images cannot be pulled, all others can.'] as const
/** What clients hear in the normal course: such a layer is not there yet, nor such a list; a login is needed. */
const usual = /^404 (HEAD .*blobs|.*referrers|.*REFERRERS_TAG)|^401 .* anonymous$/

export class Page {
  readonly #settings: PageSettings
  readonly #metrics: Metrics
  readonly #now: () => number
  readonly #software: string
  readonly #startedAt: number
  readonly #failures: unknown[] = []
  readonly #last = new Map<string, Summary & { at: number }>()
  readonly #skipped = new Set<string>()

  /** `software`: the version and the runtime, as people read them. */
  constructor(settings: PageSettings, metrics: Metrics, now: () => number, software: string) {
    this.#settings = settings
    this.#metrics = metrics
    this.#now = now
    this.#software = software
    this.#startedAt = now()
  }

  /** To be called when a registry is skipped, and when it is no more. */
  skips(name: string, isSkipped: boolean): void {
    if (isSkipped) this.#skipped.add(name)
    else this.#skipped.delete(name)
  }

  record(seen: Seen): void {
    const { method, path, matched, status, asked = [], isSent, hasLogin } = seen
    for (const one of asked) {
      const isNew = matched?.route.entity !== 'base' && one.verdict !== 'gone' && one.reason !== skipReason
      if (isNew) this.#last.set(one.upstream, { ...one, at: this.#now() })
    }
    const isFailed = status !== 499 && (status >= 400 || !isSent) && path.startsWith('/v2/')
    if (!isFailed || usual.test(`${status} ${method} ${matched?.route.path} ${hasLogin ? '' : 'anonymous'}`)) return
    this.#failures.unshift(failureItem(seen))
    this.#failures.splice(maxFailures)
  }

  async text(view: View) {
    const { aggregate, v2Requires } = this.#settings
    const { explanation, image, isOpen, isTrusted, pings } = view
    const states = pings.map((ping) => this.#state(ping))
    const isReady = pings.every((ping) => isUp(ping) || !isNeeded(ping.from.name, v2Requires))
    return html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${aggregate.host}: ${states.map(({ title }) => title).join(', ')}</title><style>${raw(style)}</style></head><body>
<h1>${aggregate.host}</h1>
<p>One address for <b>hosted</b>, a private registry, and for public ones: ${pings
      .map(({ from }) => from)
      .filter(({ role }) => role === 'public')
      .map(({ name }) => name)
      .join(', ')}.
Images and state lie there: this replica, like any other, holds none and may end at any time.</p>
<div>${states.map(({ text }) => text)}</div>
${!isReady && html`<p class="bad">But /v2/ is 503 here (V2_REQUIRES=${v2Requires}). docker and skopeo ask it first, so they can neither pull nor push now.</p>`}
${isOpen && html`<p class="bad">Open: anybody who reaches this router may push and delete. HTPASSWD_FILE is not set, and hosted asks for no login.</p>`}

<h2 id="why">Why does an image come from where it comes?</h2>
<form action="/#why"><label for="image">Image</label>
<input id="image" name="image" value="${clean(image)}" placeholder="team/app:1.0" required autocapitalize="none"><button>Explain</button></form>
${explanation && explained(explanation, clean(image))}

<h2>What failed lately</h2>
${isTrusted ? html`<ol>${this.#failures}</ol>` : 'Not shown: hosted alone can say whose login this is, and it cannot now.'}
${isTrusted && this.#failures.length === 0 && 'Nothing.'}
<p><small>The last ${maxFailures}, newest first, without what is usual in a push. The log has all.</small></p>

${await this.#figures(pings.map(({ from }) => from.name))}

<h2>Point clients here</h2>
${Object.entries(clients(aggregate)).map(([name, text]) => html`<details><summary>${name}</summary><pre>${text}</pre></details>`)}

<p><small>combined-registry ${this.#software}. The figures and failures above are this replica's own, since its start,
in its memory alone. More: <a href="/metrics">metrics</a>, <a href="/healthcheck">healthcheck</a>.</small></p>
</body></html>`
  }

  async #figures(names: readonly string[]) {
    const values = await this.#metrics.countsOfRegistries()
    const count = (name: string, of: string) => values.get(`${name} ${of}`) ?? 0
    const row = (title: string, cell: (name: string) => string | number) =>
      html`<tr><th scope="row">${title}</th>${names.map((name) => html`<td>${cell(name)}</td>`)}</tr>`
    return html`<h2>Since the start, ${this.#since(this.#startedAt)} ago</h2>
<table><tr><th scope="col">Requests by answer, /v2/ included</th>${names.map((name) => html`<th scope="col">${name}</th>`)}</tr>
${Object.entries(verdicts).map(([verdict, title]) => row(`${verdict}: ${title}`, (name) => count(name, verdict)))}
${row('first byte on average', (name) => `${Math.round((count(name, 'sum') / (count(name, 'count') || 1)) * 1000)}\u00a0ms`)}
${row('pulled', (name) => scaled(count(name, 'pull'), sizes))}
${row('pushed', (name) => scaled(count(name, 'push'), sizes))}</table>`
  }

  #state(ping: Answer) {
    const { name } = ping.from
    const [what, loss] = about[name] ?? aboutOthers
    const up = isUp(ping)
    const before = this.#last.get(name)
    const isSkipped = this.#skipped.has(name)
    const limited = before?.verdict === 'limited'
    const words = [up ? 'up' : 'down', limited && 'limited', isSkipped && 'skipped'].filter(Boolean).join(', ')
    const text = html`<section class="${words === 'up' ? 'good' : 'bad'}"><h2>${name} is ${words}</h2>
<p>It is ${what}. Its answer to /v2/: ${ping.reason ?? `${ping.status}, after ${Math.round(ping.milliseconds)} ms`}.
${before && `To the last request for content, ${this.#since(before.at)} ago: ${before.verdict} (${before.reason ?? before.status}).`}
${limited && 'It limits the rate of requests: what it alone has is 429 until that is over.'}
${isSkipped && 'It failed three times in a row and counts as failed at once; one read every 1 to 30 s tries it, and ends that when it succeeds.'}
${!up && loss}</p></section>`
    return { title: `${name} ${words}`, text }
  }

  /** How long ago, in words. */
  #since(time: number): string {
    return scaled((this.#now() - time) / 1000, { days: 86_400, h: 3600, min: 60, s: 1 })
  }
}

/** Whether `/v2/` is 503 without it. */
const isNeeded = (name: string, v2Requires: 'both' | 'hosted') =>
  name === 'hosted' || (name === 'proxy' && v2Requires === 'both')

function failureItem({ method, path, query, matched, status, asked = [], isSent }: Seen) {
  const { name, reference, digest } = matched ?? {}
  const image = reference && clean(`${name}${digest ? '@' : ':'}${reference}`)
  const ns = new URLSearchParams(query).get('ns')
  const link = image && `?${new URLSearchParams({ image, ...(ns ? { ns } : {}) })}#why`
  return html`<li><b>${isSent ? status : 'cut short'}</b> ${clean(method)}
${link ? html`<a href="${link}">${image}</a>` : clean(path)}
<small>${new Date().toISOString().replace(/T(.*)\..*/, ' $1 UTC')}</small><br>
${asked.map(({ upstream, verdict, status, reason }) => `${upstream}: ${verdict} (${reason ?? status}). `)}
${asked.length === 0 && 'No registry was asked.'}</li>`
}

function explained(explanation: NonNullable<View['explanation']>, image: string) {
  if ('refused' in explanation) return html`<p class="bad">${image}: ${explanation.message}.</p>`
  const { answer, shadowed, registries } = explanation
  const { by, status, error } = answer
  const vague = !by && !image.includes('@') && registries.some((one) => one.upstream !== 'hosted' && one.status === 404)
  return html`<p class="${by ? 'good' : 'bad'}"><b>${image}: a client gets ${by ? `it from ${by}` : `${status}, ${clean(error?.message)}`}.</b>
${shadowed && `It shadows ${shadowed.upstream}'s image of the same name, because ${shadowed.because}.`}
${vague && 'A cache says 404 for a tag also where its own upstream limits it, or cannot be reached.'}</p>
<table>${factsOf(explanation).map(([of, what]) => html`<tr><th scope="row">${of}</th><td>${clean(what)}</td></tr>`)}</table>`
}

function clients({ host, origin, protocol }: URL) {
  const [daemon, insecure] =
    protocol === 'http:'
      ? [`\n\n# plain http: /etc/docker/daemon.json\n{ "insecure-registries": ["${host}"] }`, '\ninsecure = true']
      : ['', '']
  return {
    docker: `docker pull ${host}/library/nginx\ndocker push ${host}/team/app:1.0${daemon}`,
    containerd: `# /etc/containerd/certs.d/${host}/hosts.toml
server = "${origin}"

[host."${origin}"]
  capabilities = ["pull", "resolve", "push"]`,
    'podman, buildah, skopeo': `# /etc/containers/registries.conf.d/registry.conf
[[registry]]
location = "${host}"${insecure}`,
    Kubernetes: `# in a pod; the nodes' containerd has the hosts.toml above
image: ${host}/team/app:1.0

# where a login is needed, for imagePullSecrets
kubectl create secret docker-registry registry --docker-server=${host} --docker-username=U --docker-password=P`,
  }
}

const sizes = { GiB: 2 ** 30, MiB: 2 ** 20, KiB: 2 ** 10, B: 1 }
function scaled(amount: number, units: Record<string, number>): string {
  const [unit, size] = Object.entries(units).find(([, size]) => amount >= 2 * size || size === 1) as [string, number]
  return `${Math.round(amount / size)}\u00a0${unit}`
}

const style = `
:root { color-scheme: light dark; --good: #116329; --bad: #b3261e; --line: #8888 }
@media (prefers-color-scheme: dark) { :root { --good: #6fdd8b; --bad: #ff9b90 } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem }
section h2, section p { margin: 0 }
div { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem }
section, p[class] { border-style: solid; border-width: 0 0 0 .3rem; padding: .1rem 1rem }
.good { border-color: var(--good) } .good h2, .good b { color: var(--good) }
.bad { border-color: var(--bad) } .bad h2, .bad b, li b { color: var(--bad) }
form { display: flex; gap: .5rem; align-items: center } input { flex: 1; min-width: 0 }
input, button { font: inherit; padding: .3rem .6rem } li { margin-bottom: .6rem } summary { padding: .3rem 0 }
table { border-collapse: collapse } th, td { border-bottom: 1px solid var(--line); padding: .3rem 1rem .3rem 0; text-align: left; vertical-align: top; overflow-wrap: normal }
td:only-of-type { overflow-wrap: anywhere }
pre { white-space: pre-wrap; border: 1px solid var(--line); padding: .6rem }
`
/** The page runs no script, loads nothing, is framed by nobody, and has no form that leads elsewhere. */
export const pageHeaders = {
  'Content-Security-Policy': `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'`,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
}
