/** The state of one registry: what is known of it, and its box on the page. */
import { html } from 'hono/html'
import { type Answer, isUp, type Registry } from '../../registry/answer.ts'
import { duration, headingOf, type Said, verdictIn, whyIn } from './words.ts'

export interface State {
  heading: string
  /** What it is. */
  about: string
  /** `up`, or what else there is to say: `down, skipped`. */
  words: string
  level: 'good' | 'warn' | 'bad'
  /** Status and time, as it answers `/v2/` now. */
  figures: string[]
  /** What follows from it. */
  lines: string[]
}

export interface Known {
  /** What it said to the last request for content. */
  last?: { said: Said; at: number }
  isSkipped: boolean
  now: number
  /** Whether the reader may see what could hold an address. */
  mayKnow: boolean
}

/** `ping`: its answer to `/v2/`. */
export function stateOf(ping: Answer, { last, isSkipped, now, mayKnow }: Known): State {
  const { from, status, reason, milliseconds } = ping
  const isWell = isUp(ping)
  const isLimited = last?.said.verdict === 'limited'
  const words = [isWell ? 'up' : 'down', isLimited && 'limited', isSkipped && 'skipped'].filter(Boolean).join(', ')
  const why = whyIn(ping, mayKnow)
  const lines = [
    why && `It gave no usable answer: ${why}.`,
    !isWell && lossOf(from),
    isLimited && 'It limits the rate of requests: what only it has is 429 until that is over.',
    isSkipped && 'It failed three times in a row, and is skipped. One read every 1 to 30 s tries it again.',
    last && `Last asked for content ${duration(now - last.at)} ago: ${verdictIn(last.said, mayKnow)}.`,
  ]
  return {
    heading: headingOf(from),
    about: aboutOf(from),
    words,
    level: isWell ? (words === 'up' ? 'good' : 'warn') : 'bad',
    figures: [...(reason ? [] : [`${status}`]), `${Math.round(milliseconds)}\u00a0ms`],
    lines: lines.filter((one) => typeof one === 'string'),
  }
}

function aboutOf({ name, role, title }: Registry): string {
  if (role === 'hosted') return 'the private registry, which takes pushes'
  const what = title.startsWith('the cache') ? 'a pull-through cache of it' : 'a public registry, for pulls only'
  return name === 'proxy' ? `${what}; the log calls it proxy` : what
}

function lossOf({ name, role }: Registry): string {
  if (role === 'hosted') return 'Nothing can be pushed, and private images cannot be pulled.'
  return name === 'proxy'
    ? 'Public images cannot be pulled, private ones can.'
    : 'Its images cannot be pulled, all others can.'
}

export function box({ heading, about, words, level, figures, lines }: State) {
  return html`<section class="box ${level}"><h3>${heading}</h3>
<p class="state"><b>${words.toUpperCase()}</b> ${figures.map((one) => html`<span>${one}</span> `)}</p>
<p><small>${about}</small></p>
${lines.map((line) => html`<p>${line}</p>`)}</section>`
}
