/** Certificates: the router's own, read again when their files change, and those that registries are checked against. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import process from 'node:process'
import tls from 'node:tls'
import type { Log } from '../log.ts'
import { follow, textOf } from './files.ts'
import { isDeno } from './runtime.ts'

/** A certificate with its chain and its key, in PEM, and when it ends. */
export interface Pair {
  cert: string
  key: string
  expires: Date
}

/** The certificates in a file. Throws an Error whose message ends the sentence "FILE …" and holds nothing of the file. */
export function readCertificates(path: string): string[] {
  const blocks = textOf(path).match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)
  try {
    if (blocks?.map((block) => new X509Certificate(block))) return blocks
  } catch {}
  throw new Error('must hold certificates in PEM')
}

/** The key in a file. Throws as `readCertificates` does. */
export function readKey(path: string): string {
  const text = textOf(path)
  try {
    createPrivateKey(text)
    return text
  } catch {
    throw new Error('must hold a private key in PEM, without a passphrase')
  }
}

/** Throws as `readCertificates` does, and if certificate and key do not fit each other. */
export function readPair(certFile: string, keyFile: string): Pair {
  const [cert, key] = [readCertificates(certFile).join('\n'), readKey(keyFile)]
  const own = new X509Certificate(cert)
  if (!own.checkPrivateKey(createPrivateKey(key))) throw new Error('certificate and key do not fit each other')
  // Some runtimes can tell here what a listener would refuse, such as a key that is too short.
  tls.createSecureContext({ cert, key })
  return { cert, key, expires: new Date(own.validTo) }
}

/** The pair now; `renew` gets each later one. Files that are written one after the other count when both are there. */
export function followPair(certFile: string, keyFile: string, renew: (pair: Pair) => Promise<void>, log: Log): Pair {
  const use = async (pair: Pair) => {
    await renew(pair)
    log('info', 'new certificate', { until: pair.expires })
  }
  const failed = (cause: string) => log('warn', 'the new certificate cannot be used, the old one stays', { cause })
  return follow([certFile, keyFile], () => readPair(certFile, keyFile), use, failed)
}

/**
 * What to trust, in PEM: the usual authorities and those in this file, since to name some replaces the usual ones. Undefined: what the
 * runtime trusts by itself is all of them. On Deno it sets NODE_EXTRA_CA_CERTS for that, before the first connection.
 */
export function rootsWith(caFile: string): string[] | undefined {
  if (caFile === '') return undefined
  // What is given for each connection Deno (2.9.5) reads each time: 25 ms of a core. What this variable names it reads once.
  if (isDeno && !process.env.NODE_EXTRA_CA_CERTS) {
    process.env.NODE_EXTRA_CA_CERTS = caFile
    return undefined
  }
  const { getCACertificates } = tls as { getCACertificates?: (type: string) => string[] }
  return [...new Set([...(getCACertificates?.('default') ?? tls.rootCertificates), ...readCertificates(caFile)])]
}
