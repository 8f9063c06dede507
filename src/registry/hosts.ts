/** How the host of a registry is compared. Pure. */

/** The names under which clients know Docker Hub. */
const hub = /^(?:index\.docker\.io|registry-1\.docker\.io)$/

/** Docker Hub's name in image references. */
export const dockerHub = 'docker.io'

/** A host as it is compared: in lower case, without the port of https, and Docker Hub under one name. */
export function comparable(host: string): string {
  const lower = host.toLowerCase().replace(/:443$/, '')
  return hub.test(lower) ? dockerHub : lower
}

/** What a docker-credential-helper is asked for: docker keeps Docker Hub's login under the address of its first API. */
export const keyOf = (host: string) => (comparable(host) === dockerHub ? 'https://index.docker.io/v1/' : host)
