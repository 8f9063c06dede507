/** The command line. Pure. */

export type Command =
  | { name: 'serve' | 'help' | 'version' | 'healthcheck' }
  | { name: 'explain'; image: string }
  | { name: 'check'; push?: string; json: boolean }

const plain: Readonly<Record<string, 'help' | 'version' | 'healthcheck'>> = {
  help: 'help',
  '--help': 'help',
  '-h': 'help',
  version: 'version',
  '--version': 'version',
  '--healthcheck': 'healthcheck',
}

/** What is to be done, or why that is not known. */
export function commandIn([first, ...rest]: readonly string[]): Command | { fault: string } {
  if (first === undefined) return { name: 'serve' }
  if (first === 'check') return checkIn(rest, { name: 'check', json: false })
  const [image, ...more] = first === 'explain' ? rest : [first, ...rest]
  if (image === undefined) return { fault: 'explain wants an IMAGE: see --help' }
  const name = Object.hasOwn(plain, first) ? plain[first] : undefined
  if (more.length > 0 || (first !== 'explain' && !name)) return unknown(more[0] ?? first)
  return name ? { name } : { name: 'explain', image }
}

function checkIn([first, ...rest]: readonly string[], found: Command & { name: 'check' }): Command | { fault: string } {
  if (first === undefined) return found
  if (first === '--json') return checkIn(rest, { ...found, json: true })
  const [, written] = /^--push=(.*)$/s.exec(first) ?? []
  if (first !== '--push' && written === undefined) return unknown(first)
  const [push, ...others] = written === undefined ? rest : [written, ...rest]
  return push ? checkIn(others, { ...found, push }) : { fault: 'check --push wants a NAME: see --help' }
}

const unknown = (argument: string) => ({ fault: `unknown argument ${argument}: see --help` })
