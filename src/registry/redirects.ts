/** Where the redirects of a registry may lead: what the router follows, and what a client may get. Pure. */

/** Redirects of one question that are followed. */
export const maxRedirects = 3

/** Why a redirect of a registry that leads from `from` must not be followed; undefined if it may. It is for the log. */
export function faultOfRedirect(location: string, from: string, routerHost: string): string | undefined {
  const to = URL.canParse(location, from) ? new URL(location, from) : undefined
  if (!to || location === '') return 'a redirect without a usable Location'
  // Without the query, which may be a secret.
  const shown = to.origin + to.pathname
  if (!['http:', 'https:'].includes(to.protocol)) return `a redirect to ${to.protocol}`
  if (to.username || to.password) return 'a redirect with a login in it'
  if (from.startsWith('https:') && to.protocol === 'http:') return `a redirect from https to ${shown}`
  if (to.host === routerHost) return `a redirect to this router: ${shown}`
  return undefined
}

/** The address to send the client to, or why it gets none. */
export type Redirect = { location: string } | { fault: string }

/**
 * Judges a `Location` that the registry gave to a request for `url`. A redirect to the registry itself, or to this router, would
 * only come back here. Some registries keep blobs on their own host, outside the API (Google Artifact Registry), and name only
 * the path: the client then gets the whole address.
 */
export function judgeRedirect(location: string, url: string, routerHost: string): Redirect {
  const { host, pathname } = new URL(url)
  const to = URL.canParse(location, url) ? new URL(location, url) : undefined
  const isBlob = /\/blobs\/[^/]+$/.test(pathname)
  if (isBlob && to?.host === host && !to.pathname.startsWith('/v2/')) return { location: to.href }
  if (to && to.host !== host && to.host !== routerHost) return { location }
  // Without the query, which may be a secret.
  return { fault: `redirect to ${location.split('?', 1)}: use https:// in its address?` }
}
