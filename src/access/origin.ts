/** Refuses writes that a web page of another site makes a browser send, as Go's http.CrossOriginProtection decides. */

export interface OriginSettings {
  /** This router's public address. */
  aggregate: Pick<URL, 'host'>
  /** Origins that may write all the same: `https://ci.example`. */
  trustedOrigins: readonly string[]
}

/**
 * Whether a request is a write from another site. Browsers say so in `Sec-Fetch-Site`, older ones only name the page's `Origin`
 * (Fetch standard). Clients that are no browsers send neither, and are not asked.
 */
export function isCrossSiteWrite(
  { method, headers }: Pick<Request, 'method' | 'headers'>,
  { aggregate, trustedOrigins }: OriginSettings,
): boolean {
  if (['GET', 'HEAD', 'OPTIONS'].includes(method)) return false
  const origin = headers.get('Origin')
  if (origin !== null && trustedOrigins.includes(origin)) return false
  const site = headers.get('Sec-Fetch-Site')
  if (site !== null) return site !== 'same-origin' && site !== 'none'
  if (origin === null) return false
  const host = URL.canParse(origin) ? new URL(origin).host : undefined
  return host === undefined || ![headers.get('Host'), aggregate.host].includes(host)
}
