/** Whether the names in hosted are those that the settings speak of. Pure. */

import { type NameRules, ownerOf } from '../relay/names.ts'
import { globs, list } from '../settings/parsers.ts'
import { type Finding, finding, type Maybe } from './findings.ts'

/** `hostedNames`: the text of HOSTED_NAMES. `names`: all repositories in hosted. */
export function judgeNames(hostedNames: string, names: readonly string[], rules: NameRules): Finding[] {
  // An empty registry will have images some day.
  if (names.length === 0) return []
  const found: Maybe[] = list(hostedNames).map((glob) => judgeGlob(glob, names))
  const hidden = names.filter((name) => !['table', 'hosted'].includes(ownerOf(rules, name, []).kind))
  if (hidden.length > 0)
    found.push(finding('hidden-by-prefix', { repositories: hidden.length, like: hidden.slice(0, 3).join(', ') }))
  return found.filter((one) => one !== undefined)
}

function judgeGlob(glob: string, names: readonly string[]): Maybe {
  const pattern = globs(glob)
  if (names.some((name) => pattern.has(name))) return undefined
  const below = names.find((name) => !glob.includes('*') && name.startsWith(`${glob}/`))
  const setting = 'HOSTED_NAMES'
  return below
    ? finding('glob-without-stars', { setting, glob, meant: `${glob}/**`, like: below })
    : finding('glob-unused', { setting, glob })
}
