/** How the page writes amounts, times, digests, registries and causes. */
import { html } from 'hono/html'
import { clean } from '../../log.ts'
import { type Answer, type Registry, type Summary, skipReason, summaryOf } from '../../registry/answer.ts'

/** What a registry said, and why it gave no usable answer. */
export type Said = Summary & Pick<Answer, 'cause'>

export const saidBy = (answers: readonly Answer[]): Said[] =>
  answers.map((one) => Object.assign(summaryOf(one), { cause: one.cause }))

/** What people call a registry: `hosted`, or the host of a public one. */
export function headingOf({ name, title }: Pick<Registry, 'name' | 'title'>): string {
  return name === 'proxy' ? title.replace(/^the (cache of )?/, '') : name
}

const sizes = { GiB: 2 ** 30, MiB: 2 ** 20, KiB: 2 ** 10, B: 1 }
export const bytes = (amount: number) => scaled(amount, sizes)

const times = { days: 86_400, h: 3600, min: 60, s: 1 }
export const duration = (milliseconds: number) => scaled(milliseconds / 1000, times)

function scaled(amount: number, units: Record<string, number>): string {
  const [unit, size] = Object.entries(units).find(([, size]) => amount >= 2 * size || size === 1) as [string, number]
  return `${Math.round(amount / size)}\u00a0${unit}`
}

/** A point in time for people, and whole for machines. */
export function time(at: Date) {
  const iso = at.toISOString()
  return html`<time datetime="${iso}">${iso.replace(/T(.*)\..*/, ' $1 UTC')}</time>`
}

/** A text in which each digest is short, and whole in its `title`. */
export function withDigests(text = '') {
  const parts = clean(text).split(/((?:sha256|sha512):[0-9a-f]{64,128})/)
  return parts.map((part, at) => (at % 2 === 1 ? html`<code title="${part}">${part.slice(0, 19)}…</code>` : part))
}

/** Words for causes, which the runtimes have in common. They hold no address. */
const causes: readonly [RegExp, string][] = [
  [/^the realm /, 'the realm that it sends to for tokens gives none'],
  [/ENOTFOUND|EAI_AGAIN|dns error/i, 'its host name does not resolve'],
  [/ECONNREFUSED|connection refused/i, 'nothing listens at its address'],
  [/EHOSTUNREACH|ENETUNREACH/, 'no route leads to its address'],
  [/UND_ERR_CONNECT_TIMEOUT|ETIMEDOUT/, 'no connection opens: its host is gone, or a firewall drops what is sent'],
  [/ECONNRESET|EPIPE|UND_ERR_SOCKET|other side closed|connection closed/i, 'it broke the connection off'],
  [
    /CERT|SELF_SIGNED|UNABLE_TO_|certificate|issuer/i,
    'its certificate is not trusted here, has ended, or has another name',
  ],
  [/EPROTO|wrong.version|InvalidContentType/i, 'no TLS is spoken at its address'],
]

/** Why there is no usable answer. `mayKnow`: whether the reader may see what could hold an address. */
export function whyIn({ reason, cause }: Pick<Answer, 'reason' | 'cause'>, mayKnow: boolean): string | undefined {
  if (!reason || !cause || cause === 'timeout') return reason
  const isSilent = reason === 'no answer' || reason === skipReason
  const words = isSilent && causes.find(([pattern]) => pattern.test(cause))?.[1]
  const [code] = /\b[A-Z][A-Z_]{4,}\b/.exec(cause) ?? []
  if (words) return code ? `${words} (${code})` : words
  return mayKnow ? `${reason}: ${clean(cause)}` : reason
}

/** What a registry said, and why if it is no usable answer. */
export function verdictIn(said: Said, mayKnow: boolean): string {
  const why = whyIn(said, mayKnow)
  return why ? `${said.verdict}, ${why}` : `${said.verdict} (${said.status})`
}
