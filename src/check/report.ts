/** What `check` prints: a page for people, or JSON, and the exit code. */
import { clean } from '../log.ts'
import { type Answer, summarize } from '../registry/answer.ts'
import { isRead } from '../runtime/runtime.ts'
import type { Asked, Checked } from './check.ts'
import type { SettingInEffect } from './effect.ts'
import type { About, Finding } from './findings.ts'

export interface Reported extends Checked {
  version: string
  settings: readonly SettingInEffect[]
}

/** 0: all is well. 1: it would not work. 2: it works, with warnings. */
export function exitCodeOf(findings: readonly Finding[]): 0 | 1 | 2 {
  const has = (wanted: string) => findings.some(({ severity }) => severity === wanted)
  return has('error') ? 1 : has('warning') ? 2 : 0
}

export function toJson({ version, settings, registries, findings }: Reported): string {
  const value = {
    version,
    settings: settings.map(({ name, value, isSet }) => ({ name, value, from: isSet ? 'variable' : 'default' })),
    registries: registries.map(({ subject, asked }) => ({
      name: subject.name,
      address: subject.address.href,
      setting: subject.setting,
      asked: asked.map(({ method, target, told }) => ({ method, target, ...summarize([told])[0], cause: told.cause })),
    })),
    findings: findings.map(({ about, ...row }) => ({ ...row, ...about })),
    exit: exitCodeOf(findings),
  }
  return JSON.stringify(value, undefined, 2)
}

const width = 118

export function toPage({ settings, registries, findings }: Reported): string {
  const set = settings.filter(({ isSet }) => isSet)
  const defaults = settings.filter(({ isSet, value }) => !isSet && value !== '')
  return [
    'Set by variables:',
    ...wrapped(set.map(({ name, value }) => `${name}=${clean(value)}`)),
    'Defaults (what is not here is empty):',
    ...wrapped(defaults.map(({ name, value }) => `${name}=${value}`)),
    'Registries:',
    ...registries.flatMap(({ subject, asked }) => [
      `  ${subject.name}  ${subject.address.href}`,
      ...asked.filter(isShown).map(({ method, target, told }) => `    ${method} ${target}  ${factsOf(told)}`),
    ]),
    findings.length > 0 ? 'Findings:' : 'All is well.',
    ...findings.flatMap(linesOf),
  ].join('\n')
}

/** The first two, and what wrote. */
const isShown = ({ method }: Asked, at: number) => at < 2 || !isRead({ method })

function factsOf({ status, verdict, milliseconds, reason, cause }: Answer) {
  const why = [reason, cause].filter(Boolean).join(': ')
  return clean([status, verdict, `${Math.round(milliseconds)} ms`, why].filter(Boolean).join('  '))
}

function linesOf({ code, severity, what, why, remedy, about }: Finding): string[] {
  const { upstream, ...rest } = about
  const title = [upstream, what].filter(Boolean).join(': ')
  return [`  ${severity}  ${code}`, `    ${title}${detailOf(rest)}`, `    It matters: ${why}.`, `    Do: ${remedy}.`]
}

function detailOf(about: About): string {
  const pairs = Object.entries(about).filter(([, value]) => value !== undefined)
  return pairs.length > 0 ? ` (${pairs.map(([key, value]) => `${key} ${clean(`${value}`)}`).join('; ')})` : '.'
}

/** Words in lines of a page. */
function wrapped(words: readonly string[]): string[] {
  const lines: string[] = []
  for (const word of words) {
    const last = lines.at(-1)
    if (last && last.length + word.length < width) lines.push(`${lines.pop()}  ${word}`)
    else lines.push(`  ${word}`)
  }
  return lines
}
