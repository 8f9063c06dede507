/** The router's certificate for a registry that wants one of its clients: it is shown to that registry's own origin only. */
import type { Log } from '../log.ts'
import type { Fetch } from '../runtime/runtime.ts'
import { followPair } from '../runtime/tls.ts'

export interface Identity {
  certFile: string
  keyFile: string
}

/** The same fetch, with the certificate of these files, read again when they change. Throws if they cannot be used. */
export function withIdentity(fetch: Fetch, { certFile, keyFile }: Identity, origin: string, log: Log): Fetch {
  const renew = async (renewed: typeof pair) => {
    pair = renewed
  }
  let pair = followPair(certFile, keyFile, renew, log)
  return (url, asked, fresh) => {
    const isOwn = asked.sentBy === undefined && new URL(url).origin === origin
    return fetch(url, isOwn ? { ...asked, identity: pair } : asked, fresh)
  }
}
