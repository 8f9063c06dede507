/** What a browser gets at `/`: the registries now, how to use the router, where an image comes from, what failed lately. */
import { html, raw } from 'hono/html'
import { clean } from '../../log.ts'
import { type Answer, asksForNoLogin, isUp, skipReason } from '../../registry/answer.ts'
import type { Globs } from '../../registry/globs.ts'
import type { Metrics } from '../metrics.ts'
import { clientsIn } from './clients.ts'
import { type Explained, explained } from './explained.ts'
import { Failures, failureItem, maxFailures, type Seen } from './failures.ts'
import { figures } from './figures.ts'
import {
  type AtStart,
  certificateLine,
  type Notice,
  noticeList,
  noticeOfEnd,
  noticesOf,
  settingsTable,
} from './notices.ts'
import { box, stateOf } from './state.ts'
import { pageHeaders, style } from './style.ts'
import { duration, headingOf, type Said, saidBy } from './words.ts'

export { pageHeaders }

/** What the page shows now. */
interface View {
  /** What each registry says to `/v2/`. */
  pings: readonly Answer[]
  image: string
  explanation?: Explained
  /** Whether the browser has sent a login. */
  hasLogin: boolean
  /** What hosted says to `/v2/` without a login. */
  ofStranger: Answer
}

export interface PageSettings {
  /** This router's public address. */
  aggregate: URL
  v2Requires: 'both' | 'hosted'
  hostedNames: Globs
  /** Whether logins are hosted's to check. */
  passLogin: boolean
}

export class Page {
  readonly #settings: PageSettings
  readonly #metrics: Metrics
  readonly #now: () => number
  readonly #software: string
  readonly #atStart: AtStart
  readonly #startedAt: number
  readonly #failures = new Failures()
  readonly #last = new Map<string, { said: Said; at: number }>()
  /** The last cause of each registry for giving no usable answer. */
  readonly #causes = new Map<string, string | undefined>()
  readonly #skipped = new Set<string>()
  #certificateEnds: Date | undefined

  /** `software`: the version and the runtime, as people read them. */
  constructor(
    settings: PageSettings,
    metrics: Metrics,
    now: () => number,
    software: string,
    atStart: AtStart = { settings: [], warnings: [] },
  ) {
    this.#settings = settings
    this.#metrics = metrics
    this.#now = now
    this.#software = software
    this.#atStart = atStart
    this.#startedAt = now()
  }

  /** To be called when a registry is skipped, and when it is no more. */
  skips(name: string, isSkipped: boolean): void {
    if (isSkipped) this.#skipped.add(name)
    else this.#skipped.delete(name)
  }

  certified(expires: Date): void {
    this.#certificateEnds = expires
  }

  record(seen: Seen, answers: readonly Answer[]): void {
    const asked = this.#caused(answers)
    for (const one of asked) {
      const isNew = seen.matched?.route.entity !== 'base' && one.verdict !== 'gone' && one.reason !== skipReason
      if (isNew) this.#last.set(one.upstream, { said: one, at: this.#now() })
    }
    this.#failures.record(seen, asked)
  }

  /** What registries said. One that is skipped has the cause of its last failure. */
  #caused(answers: readonly Answer[]): Said[] {
    return saidBy(answers).map((one) => {
      if (one.reason === skipReason) return { ...one, cause: this.#causes.get(one.upstream) }
      if (one.reason) this.#causes.set(one.upstream, one.cause)
      return one
    })
  }

  async text(view: View) {
    const { aggregate, passLogin } = this.#settings
    // If logins are hosted's to check, and it cannot now, this client may be a stranger.
    const ofHosted = view.pings.find(({ from }) => from.role === 'hosted')
    const isTrusted = !passLogin || ofHosted?.status === 200
    // An open hosted takes any login. Whether it is open is only known while it is up.
    const isOpen = passLogin && asksForNoLogin(view.ofStranger)
    const isClosed = isUp(view.ofStranger) && !isOpen
    const mayKnow = isTrusted && (!passLogin || (view.hasLogin && isClosed))
    // Hosted first.
    const pings = view.pings.toSorted((a, b) => Number(b === ofHosted) - Number(a === ofHosted))
    const states = pings.map((ping) => this.#state(ping, mayKnow))
    const counts = await this.#metrics.countsOfRegistries()
    return html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${aggregate.host}: ${states.map(({ heading, words }) => `${heading} ${words}`).join(', ')}</title><style>${raw(style)}</style></head><body>
<header><h1>${aggregate.host}</h1>
<p>One address for a private registry and public ones. It stores no images: they are in the registries below.</p>
${certificateLine(this.#certificateEnds)}</header>
<main><h2>Registries</h2>
<div class="boxes">${states.map(box)}</div>
${noticeList(this.#notices(pings, isTrusted, isOpen))}

<h2>Point clients here</h2>
${clientsIn(aggregate)}

<h2 id="why">Where does an image come from?</h2>
${this.#why({ ...view, pings }, mayKnow)}

<h2>What failed lately</h2>
${this.#failed(pings, isTrusted, mayKnow)}

<h2>Since the start, ${duration(this.#now() - this.#startedAt)} ago</h2>
${figures(
  pings.map(({ from }) => from),
  counts,
)}

<h2>Settings in effect</h2>
${isTrusted ? settingsTable(this.#atStart) : notShown}</main>
<footer><p><small>combined-registry ${this.#software}. The figures and failures are of this replica only, since it started.
More: <a href="/metrics">metrics</a>, <a href="/healthcheck">healthcheck</a>.</small></p></footer>
</body></html>`
  }

  #state(ping: Answer, mayKnow: boolean) {
    const { name } = ping.from
    return stateOf(ping, { last: this.#last.get(name), isSkipped: this.#skipped.has(name), now: this.#now(), mayKnow })
  }

  #notices(pings: readonly Answer[], isTrusted: boolean, isOpen: boolean): Notice[] {
    const { v2Requires } = this.#settings
    const isReady = pings.every((ping) => isUp(ping) || !isNeeded(ping.from.name, v2Requires))
    const outage = `/v2/ is 503 here (V2_REQUIRES=${v2Requires}). skopeo and podman stop at that, docker goes on.`
    const open =
      'Open: anybody who reaches this router may push and delete. HTPASSWD_FILE is not set, and hosted asks for no login.'
    const ofEnd = noticeOfEnd(this.#certificateEnds)
    return [
      ...(isReady ? [] : [{ level: 'bad', text: outage } as const]),
      ...(isOpen ? [{ level: 'warn', text: open } as const] : []),
      ...(ofEnd ? [ofEnd] : []),
      ...(isTrusted ? noticesOf(this.#atStart) : []),
    ]
  }

  #why({ pings, image, explanation }: View, mayKnow: boolean) {
    const typed = clean(image)
    const around = {
      image: typed,
      hostedNames: this.#settings.hostedNames.globs,
      nameOf: namesIn(pings),
      causeOf: (upstream: string, reason?: string) => {
        if (reason === skipReason) return this.#causes.get(upstream)
        const ping = pings.find(({ from }) => from.name === upstream)
        return ping?.reason === reason ? ping?.cause : undefined
      },
      mayKnow,
    }
    return html`<form action="/#why"><label for="image">Image</label>
<input id="image" name="image" value="${typed}" placeholder="team/app:1.0" required autocapitalize="none" spellcheck="false"><button>Explain</button></form>
${explanation && explained(explanation, around)}`
  }

  #failed(pings: readonly Answer[], isTrusted: boolean, mayKnow: boolean) {
    const items = this.#failures.list().map((one) => failureItem(one, namesIn(pings), mayKnow))
    if (!isTrusted) return notShown
    return html`${items.length > 0 ? html`<ol>${items}</ol>` : html`<p>Nothing.</p>`}
<p><small>The last ${maxFailures} kinds, newest first, without what is usual in a push. The log has all, by id.</small></p>`
  }
}

const notShown = html`<p>Not shown: only hosted can say whose login this is, and it cannot now.</p>`

/** Gives the names of registries for people. */
function namesIn(pings: readonly Answer[]): (upstream: string) => string {
  const names = new Map(pings.map(({ from }) => [from.name, headingOf(from)]))
  return (upstream) => names.get(upstream) ?? upstream
}

/** Whether `/v2/` is 503 without it. */
const isNeeded = (name: string, v2Requires: 'both' | 'hosted') =>
  name === 'hosted' || (name === 'proxy' && v2Requires === 'both')
