/** What an operator should know of the settings: warnings, the certificate's end, and what is in effect. */
import { html } from 'hono/html'
import { clean } from '../../log.ts'
import { duration, time } from './words.ts'

/** What the start found out about the settings. */
export interface AtStart {
  settings: readonly { name: string; value: string; isSet: boolean }[]
  warnings: readonly { code: string; what: string; remedy: string; about: Readonly<Record<string, unknown>> }[]
}

export interface Notice {
  level: 'warn' | 'bad'
  text: string
}

/** Settings whose values the page shows. The others hold addresses, files and logins: it only says that they are set. */
const shown = new Set(
  `AGGREGATE_HOSTNAME PORT HOST HOSTED_TIMEOUT PROXY_TIMEOUT BLOB_TIMEOUT WRITE_TIMEOUT DRAIN_TIMEOUT IDLE_TIMEOUT V2_REQUIRES
  BLOB_REDIRECTS LOOKUP_ORDER HOSTED_NAMES PROXY_NAMES PROXY_NS HOSTED_NS TAGS COPY_LIMIT ANONYMOUS_PULL CREDENTIALS_INTERVAL
  LOOKUP_TTL NAME_TTL TAG_TTL STALE_IF_ERROR MANIFEST_MEMORY LOG_FORMAT LOG_LEVEL`.split(/\s+/),
)

const day = 24 * 3600 * 1000
/** A warning is due this long before the certificate ends. */
const endingMs = 14 * day

/** What is wrong with the router's own certificate. */
export function noticeOfEnd(ends: Date | undefined, now = new Date()): Notice | undefined {
  const leftMs = ends ? ends.getTime() - now.getTime() : Number.POSITIVE_INFINITY
  if (leftMs > endingMs) return undefined
  const state = leftMs < 0 ? 'has expired: clients refuse it' : `ends in ${duration(leftMs)}`
  return {
    level: leftMs < 0 ? 'bad' : 'warn',
    text: `This router's own certificate ${state}. Renew it: the files are read anew.`,
  }
}

/** The warnings of the start. What may have changed since is told by the page itself. */
export function noticesOf({ warnings }: AtStart): Notice[] {
  const lasting = warnings.filter(({ code }) => !/^own-certificate-(ends|expired)$/.test(code))
  return lasting.map(({ what, remedy, about }) => {
    const { upstream, ...rest } = about
    const subject = upstream ? `${upstream}: ${what}` : what.replace(/^./, (first) => first.toUpperCase())
    const facts = Object.entries(rest).filter(([, value]) => value !== undefined)
    const detail = facts.length > 0 ? ` (${facts.map(([key, value]) => `${key} ${value}`).join(', ')})` : ''
    return { level: 'warn', text: clean(`${subject}${detail}. Do: ${remedy}.`) }
  })
}

export const noticeList = (notices: readonly Notice[]) =>
  notices.map(({ level, text }) => html`<p class="note ${level}">${text}</p>`)

export function settingsTable({ settings }: AtStart) {
  const set = settings.filter(({ isSet }) => isSet)
  const defaults = settings.filter(({ name, isSet, value }) => !isSet && value !== '' && shown.has(name))
  const row = ({ name, value }: { name: string; value: string }) =>
    html`<tr><th scope="row">${name}</th><td>${shown.has(name) ? clean(value) : html`<i>set</i>`}</td></tr>`
  return html`<details><summary>Set by variables: ${set.length}</summary><table>${set.map(row)}</table></details>
<details><summary>Defaults: ${defaults.length}</summary><table>${defaults.map(row)}</table></details>
<p><small>Addresses, files and logins are not shown. The log has them in its line <code>settings</code>, passwords never.</small></p>`
}

export const certificateLine = (ends: Date | undefined) => ends && html`<p>Its own certificate ends ${time(ends)}.</p>`
