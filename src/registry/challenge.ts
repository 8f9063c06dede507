/** The field `WWW-Authenticate` (RFC 9110, section 11.6.1): the only parser of challenges. */

/** One challenge; scheme and names of parameters in lower case. */
export interface Challenge {
  scheme: string
  realm?: string
  service?: string
  scope?: string
  /** Why the last token was refused (RFC 6750, section 3.1). */
  error?: string
}

/** Clients take no longer field, and Bun's regular expressions take a time that grows with the square of the length. */
const maxField = 8192

/** The challenges in a field, or in several fields joined to one, as they came. In a field that is too long there is none. */
export function splitChallenges(field: string): string[] {
  if (field.length > maxField) return []
  // A quoted string without its end counts as quoted to the end: else each of its characters would be tried as a beginning.
  const parts = field.match(/(?:[^,"]|"(?:[^"\\]|\\.?)*(?:"|$))+/g) ?? []
  const challenges: string[] = []
  for (const part of parts.map((text) => text.trim())) {
    // A scheme is a word before a space or the end; a parameter has its `=` first.
    if (challenges.length === 0 || /^[^\s=]+(\s|$)/.test(part)) challenges.push(part)
    else challenges[challenges.length - 1] += `,${part}`
  }
  return challenges
}

/** The same field with Bearer first, since clients take the first challenge they can follow. */
export function bearerFirst(field: string): string {
  const challenges = splitChallenges(field)
  const isBearer = (challenge: string) => /^bearer\b/i.test(challenge)
  return [...challenges.filter(isBearer), ...challenges.filter((challenge) => !isBearer(challenge))].join(', ')
}

/** The same field with another realm in each Bearer challenge for which `realmFor` gives one, and the scopes of those mapped. */
export function withRealms(
  field: string,
  realmFor: (realm: string) => string | undefined,
  mapScopes: (scopes: string) => string,
): string {
  const changed = splitChallenges(field).map((challenge) => {
    if (!/^bearer\b/i.test(challenge)) return challenge
    const { realm = '', scope } = parseChallenges(challenge)[0] ?? {}
    const own = realmFor(realm)
    if (own === undefined) return challenge
    const led = withValue(challenge, 'realm', own)
    return scope === undefined ? led : withValue(led, 'scope', mapScopes(scope))
  })
  return changed.join(', ')
}

/** The same challenge with another value of one parameter. */
function withValue(challenge: string, name: string, value: string): string {
  const parameter = new RegExp(`\\b${name}=(?:"(?:[^"\\\\]|\\\\.)*(?:"|$)|[^\\s,"]+)`, 'i')
  return challenge.replace(parameter, () => `${name}="${value}"`)
}

/** The parsed challenges of a field. */
export function parseChallenges(field: string): Challenge[] {
  return splitChallenges(field).map((challenge) => {
    const [scheme = ''] = challenge.split(' ')
    const parameters = challenge.matchAll(/\b([a-z]+)=(?:"((?:[^"\\]|\\.)*)(?:"|$)|([^\s,"]+))/gi)
    const entries = [...parameters].map(([, name = '', quoted, plain]) => [name.toLowerCase(), quoted ?? plain])
    return { scheme: scheme.toLowerCase(), ...Object.fromEntries(entries) }
  })
}
