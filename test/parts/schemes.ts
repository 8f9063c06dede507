/** For tests that run over http and over https alike. */
import { type Certificate, certify } from './certificates.ts'
import { trusted } from './client.ts'

export const schemes = ['http', 'https'] as const
export type Scheme = (typeof schemes)[number]

/** A certificate for servers on this machine, and the settings with which the router serves it and trusts it. */
export interface Tls {
  certificate: Certificate
  settings: Record<string, string>
}

/** Makes a certificate, in this folder, that the clients of this process trust. */
export async function tlsIn(folder: string): Promise<Tls> {
  const authority = await certify(folder, 'authority')
  const certificate = await certify(folder, 'server', 'IP:127.0.0.1', authority)
  trusted.ca = authority.cert
  const { certFile: TLS_CERT_FILE, keyFile: TLS_KEY_FILE } = certificate
  return { certificate, settings: { TLS_CERT_FILE, TLS_KEY_FILE, CA_FILE: authority.certFile } }
}
