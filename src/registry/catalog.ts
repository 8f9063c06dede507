/** The catalog of a registry that has a path before its names: what is outside the path is not listed. */
import type { Answer } from './answer.ts'
import { readOciError } from './errors.ts'
import { json } from './json.ts'
import { nextQuery } from './links.ts'
import { lastHere, nameHere, withParameter } from './names.ts'

/** Pages of only other names that are skipped for one page. */
const maxSkipped = 100

/**
 * A page of the names below `path`, as they are called here. `ask` gets the query of a page, as clients write it. A page on which all
 * names are outside is skipped. The link to the next page tells no name that is outside.
 */
export async function catalogHere(
  ask: (query: string) => Promise<Answer>,
  query: string,
  path: string,
): Promise<Answer> {
  let asked = query
  for (let skipped = 0; ; skipped++) {
    const answer = await ask(asked)
    if (answer.verdict !== 'found') return answer
    const names = namesIn(json(answer.content))
    const next = nextQuery(answer.headers.get('Link') ?? '')
    if (!names || skipped === maxSkipped)
      return failed(answer, names ? 'lists too many other names' : 'gave no catalog')
    const own = names.flatMap((name) => nameHere(name, path) ?? [])
    if (own.length > 0 || !next) return page(answer, own, next && nextHere(next, names, own, path))
    asked = `?${withParameter(next.slice(1), 'last', (last) => lastHere(last, path))}`
  }
}

/** The names in the body of a catalog; undefined if it is none. */
function namesIn(value: unknown): string[] | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  // Go writes an empty list as null.
  const { repositories } = value as { repositories?: unknown }
  if (!Array.isArray(repositories)) return (repositories ?? null) === null ? [] : undefined
  return repositories.filter((one) => typeof one === 'string')
}

/** If the page ends with a name that is outside, the next one begins after the last own name: the rest is skipped again. */
function nextHere(next: string, names: readonly string[], own: readonly string[], path: string): string {
  const map = (last: string) =>
    names.includes(last) ? (nameHere(last, path) ?? own.at(-1) ?? '') : lastHere(last, path)
  return `?${withParameter(next.slice(1), 'last', map)}`
}

function page(answer: Answer, repositories: readonly string[], next: string | undefined): Answer {
  const content = new TextEncoder().encode(JSON.stringify({ repositories }))
  const headers = new Headers({ 'Content-Type': 'application/json', 'Content-Length': `${content.byteLength}` })
  if (next) headers.set('Link', `<${next}>; rel="next"`)
  return { ...answer, content, headers }
}

function failed(answer: Answer, reason: string): Answer {
  if (answer.response && !answer.content) readOciError(answer.response).catch(() => {})
  return { ...answer, verdict: 'failed', status: 502, reason, response: undefined, content: undefined }
}
