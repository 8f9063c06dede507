/** Certificates: the router's own, taken anew when their files change, and those that upstreams are checked against. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import tls from 'node:tls'
import { follow, textOf } from './files.ts'
import type { Log } from './log.ts'

/** A certificate with its chain and its key, in PEM, and when it ends. */
export interface Pair {
  cert: string
  key: string
  expires: Date
}

/** Throws an Error whose message ends the sentence "FILE …"; nothing that is in the file is in it. */
export function readCertificates(path: string): string[] {
  const blocks = textOf(path).match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)
  try {
    if (blocks?.map((block) => new X509Certificate(block))) return blocks
  } catch {}
  throw new Error('must hold certificates in PEM')
}

/** Likewise. */
export function readKey(path: string): string {
  const text = textOf(path)
  try {
    createPrivateKey(text)
    return text
  } catch {
    throw new Error('must hold a private key in PEM, without a passphrase')
  }
}

/** Throws where they do not fit, too. */
function readPair(certFile: string, keyFile: string): Pair {
  const [cert, key] = [readCertificates(certFile).join('\n'), readKey(keyFile)]
  const own = new X509Certificate(cert)
  if (!own.checkPrivateKey(createPrivateKey(key)))
    throw new Error('TLS_CERT_FILE and TLS_KEY_FILE do not fit each other')
  // Where the runtime can tell, this refuses what a listener would: a key too short.
  tls.createSecureContext({ cert, key })
  return { cert, key, expires: new Date(own.validTo) }
}

/** The pair now; `renew` gets the next. Of two files that are written one after the other, the old serve until both are there. */
export function followPair(certFile: string, keyFile: string, renew: (pair: Pair) => Promise<void>, log: Log): Pair {
  const use = async (pair: Pair) => {
    await renew(pair)
    log('info', 'new certificate', { until: pair.expires })
  }
  const failed = (cause: string) => log('warn', 'the new certificate cannot be used, the old one stays', { cause })
  return follow([certFile, keyFile], () => readPair(certFile, keyFile), use, failed)
}

/** The usual roots and these, which alone would replace them. */
export function rootsWith(ca: string[]): string[] | undefined {
  if (ca.length === 0) return undefined
  const { getCACertificates } = tls as { getCACertificates?: (type: string) => string[] }
  return [...(getCACertificates?.('default') ?? tls.rootCertificates), ...ca]
}
