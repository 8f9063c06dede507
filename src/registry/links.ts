/** The field `Link` (RFC 8288), as registries page their lists with it. */

interface Link {
  target: string
  /** What follows the target: `; rel="next"`. */
  parameters: string
}

/**
 * The query of the next page, `?…`. Undefined without a next page, empty if no query leads to it. Some registries leave out the `<>`.
 */
export function nextQuery(field: string): string | undefined {
  return linksIn(field)
    .find(isNext)
    ?.target.replace(/^[^?]*/, '')
}

/** The field of a list at `path`: its next page is linked there, since the address that a registry names may be an inner one. */
export function linksOfList(field: string, path: string, mapOther: (target: string) => string): string {
  const links = linksIn(field).flatMap((link) => {
    if (!isNext(link)) return [`<${mapOther(link.target)}>${link.parameters}`]
    const query = link.target.replace(/^[^?]*/, '')
    return query ? [`<${path}${query}>; rel="next"`] : []
  })
  return links.join(', ')
}

/** The same field for a client that knows the list at one of `paths` by another path, and that names its registry by `ns`. */
export function linksAsAsked(
  field: string,
  paths: readonly (string | undefined)[],
  asked: string,
  namespaces: readonly string[],
): string {
  const links = linksIn(field).map(({ target, parameters }) => {
    const [path, query = ''] = target.split(/\?(.*)/s)
    if (!paths.includes(path)) return `<${target}>${parameters}`
    const rest = query.split('&').filter((one) => one !== '' && !new URLSearchParams(one).has('ns'))
    const named = namespaces.map((one) => `ns=${encodeURIComponent(one)}`)
    return `<${asked}?${[...rest, ...named].join('&')}>${parameters}`
  })
  return links.join(', ')
}

function isNext({ parameters }: Link): boolean {
  const [, several, one] = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s";,]+))/i.exec(parameters) ?? []
  return (several ?? one ?? '').toLowerCase().split(/\s+/).includes('next')
}

/** In one pass, since anyone may send a long field: links are separated by commas outside `<>` and quotes. */
function linksIn(field: string): Link[] {
  const links: string[] = []
  let begin = 0
  let closing = ''
  for (let at = 0; at <= field.length; at++) {
    const character = field[at]
    if (closing) closing = character === closing ? '' : closing
    else if (character === '<') closing = '>'
    else if (character === '"') closing = '"'
    if (at < field.length && (closing || character !== ',')) continue
    links.push(field.slice(begin, at).trim())
    begin = at + 1
  }
  return links.flatMap((link) => {
    const isBracketed = link.startsWith('<')
    const end = `${link};`.indexOf(isBracketed ? '>' : ';')
    const target = isBracketed ? link.slice(1, end) : link.slice(0, end).trim()
    return end > 0 ? [{ target, parameters: link.slice(isBracketed ? end + 1 : end).trim() }] : []
  })
}
