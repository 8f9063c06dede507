/** The settings in effect, as texts, and the variables that nearly are one. */
import type { Parse } from '../settings/parsers.ts'
import { type NearMiss, nearMisses } from './misspelt.ts'

/** A row of the table of settings: its variable, its default, how it is parsed. */
type Row = readonly [name: string, fallback: string | undefined, parse: Parse<unknown>, ...unknown[]]

export interface SettingInEffect {
  name: string
  /** A password and a faulty value are not shown: a faulty address may have one in it. */
  value: string
  /** Whether a variable sets it. Else it is the default. */
  isSet: boolean
}

export interface Effect {
  settings: readonly SettingInEffect[]
  misspelt: readonly NearMiss[]
}

/** An empty variable counts as missing. */
export function effectOf(rows: readonly Row[], environment: Readonly<Record<string, string | undefined>>): Effect {
  const variables = Object.keys(environment).filter((name) => environment[name]?.trim())
  const settings = rows.map(([name, fallback = '', parse]) => {
    const given = environment[name]?.trim()
    return given ? { name, value: shown(name, given, parse), isSet: true } : { name, value: fallback, isSet: false }
  })
  const names = rows.map(([name]) => name)
  return { settings, misspelt: nearMisses(variables, names) }
}

function shown(name: string, given: string, parse: Parse<unknown>): string {
  if (/(PASSWORD|SECRET|TOKEN)$/.test(name)) return '(not shown)'
  try {
    parse(given)
    return given
  } catch {
    return '(wrong)'
  }
}

/** For whom a setting is missing: it may have been misspelt. */
export const hintsIn = ({ misspelt }: Effect) =>
  misspelt.map(({ variable, meant }) => `${variable} is no setting: ${meant ? `${meant} is` : 'see --help'}`)
