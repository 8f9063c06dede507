/** Variables that nearly are a setting of this router: misspelt ones. Pure. */

export interface NearMiss {
  variable: string
  /** The setting that it resembles. Undefined if it only begins as settings of this router do. */
  meant?: string
}

/** What Kubernetes sets for a Service that is called `proxy` or `hosted`, and nobody writes by hand. */
const serviceLink = /_(SERVICE_HOST|(SERVICE_)?PORT(_.*)?)$/
/** No other program has variables that begin so. */
const onlyOurs = /^(HOSTED|AGGREGATE|HTPASSWD)_/
/** A shorter name resembles too much: HOST is no misspelt PORT, and HOSTNAME is everywhere. */
const minLength = 7

/** `variables`: the names in the environment. `settings`: the names of all settings. */
export function nearMisses(variables: readonly string[], settings: readonly string[]): NearMiss[] {
  return variables.flatMap((variable) => {
    const name = variable.toUpperCase().replace(/\W/g, '_')
    if (settings.includes(variable) || name.length < minLength || serviceLink.test(name)) return []
    const meant = resembled(name, settings)
    return meant || onlyOurs.test(name) ? [{ variable, meant }] : []
  })
}

function resembled(name: string, settings: readonly string[]): string | undefined {
  const near = settings.filter((one) => one.length >= minLength && distance(name, one) <= tolerance(name, one))
  const [nearest] = near.sort((a, b) => distance(name, a) - distance(name, b))
  return nearest ?? settings.find((one) => isBeginning(name, one))
}

/** Letters that may differ: two of ten, one of a shorter name. With another first letter it is another word: SSL_CERT_FILE. */
function tolerance(name: string, setting: string): number {
  return Math.min(name.length, setting.length) < 10 || name[0] !== setting[0] ? 1 : 2
}

/** PROXY_HOST for PROXY_HOSTNAME. One word may be anything, unless it is a long one: HTPASSWD. */
function isBeginning(name: string, setting: string): boolean {
  return setting.startsWith(name) && (name.includes('_') || name.length > minLength)
}

/** Letters to add, leave out, change, or swap with the next one (Damerau and Levenshtein, optimal string alignment). */
function distance(a: string, b: string): number {
  let [before, last] = [[] as number[], Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = (last[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const swap = isSwap ? (before[j - 2] as number) + 1 : change
      row.push(Math.min(change, swap, (last[j] as number) + 1, (row[j - 1] as number) + 1))
    }
    ;[before, last] = [last, row]
  }
  return last[b.length] as number
}
