/** Which redirects of a registry a client may get. */

/** The address to send the client to, or why it gets none. A fault may hold an address: it is for the log. */
export type Redirect = { location: string } | { fault: string }

/**
 * Judges a `Location` that the registry gave to a request for `url`. A redirect to the registry itself, or to `routerHost`, would
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
