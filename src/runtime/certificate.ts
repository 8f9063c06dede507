/** What a certificate says of itself, whoever signed it: to tell why it is not trusted, and when the router's own ends. */
import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import tls from 'node:tls'
import { readCertificates } from './tls.ts'

export interface Certificate {
  from: Date
  until: Date
  /** Whether it is for this host, without the brackets of IPv6. */
  isFor: (host: string) => boolean
}

function toldBy(certificate: X509Certificate): Certificate {
  return {
    from: new Date(certificate.validFrom),
    until: new Date(certificate.validTo),
    isFor: (host) => (isIP(host) ? certificate.checkIP(host) : certificate.checkHost(host)) !== undefined,
  }
}

/** The first certificate in a file that was read before. */
export function certificateIn(path: string): Certificate {
  return toldBy(new X509Certificate(readCertificates(path)[0] as string))
}

function shownBy(socket: tls.TLSSocket): Certificate | undefined {
  try {
    return toldBy(new X509Certificate(socket.getPeerCertificate().raw))
  } catch {
    // It shows none, or one that cannot be read.
    return undefined
  }
}

/** The certificate that is shown at an address, trusted or not; undefined if TLS is not spoken there. Sends no request. */
export function certificateAt({ hostname, protocol, port }: URL, waitMs: number): Promise<Certificate | undefined> {
  const host = hostname.replace(/^\[|\]$/g, '')
  const options = { host, port: Number(port || (protocol === 'https:' ? 443 : 80)), servername: isIP(host) ? '' : host }
  return new Promise((resolve) => {
    // Nothing is sent over this connection, so there is nothing to protect.
    const socket = tls.connect({ ...options, rejectUnauthorized: false })
    const end = () => {
      socket.destroy()
      resolve(undefined)
    }
    socket.setTimeout(waitMs, end).on('error', end).on('close', end)
    socket.once('secureConnect', () => {
      resolve(shownBy(socket))
      socket.destroy()
    })
  })
}
