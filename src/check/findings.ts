/** One finding: a row of the table, and what it is about. */
import type { Severity } from './further.ts'
import { type Code, table } from './table.ts'

/** What a finding is about: a registry (`upstream`), a setting, a variable, what was seen. */
export type About = Readonly<Record<string, unknown>>

export interface Finding {
  code: Code
  severity: Severity
  /** What is wrong, why it matters, and what to do. */
  what: string
  why: string
  remedy: string
  about: About
}

/** `severity`: if it is another one than in the table. */
export function finding(code: Code, about: About = {}, severity: Severity = table[code][0]): Finding {
  const [, what, why, remedy] = table[code]
  return { code, severity, what, why, remedy, about }
}

const severities: readonly Severity[] = ['error', 'warning', 'note']
/** The worst first. */
export const bySeverity = (findings: readonly Finding[]) =>
  findings.toSorted((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity))

/** A finding that may turn out to be none. */
export type Maybe = Finding | undefined
