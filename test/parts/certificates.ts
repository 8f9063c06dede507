/** Makes certificate authorities and certificates for tests, with openssl. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './children.ts'
import { program } from './packages.ts'

/** The paths of the PEM files, and their content. */
export interface Certificate {
  certFile: string
  keyFile: string
  cert: string
  key: string
}

/**
 * Makes a certificate: signed by `issuer` for `altNames`, or self-signed if there is no issuer.
 * `altNames` has the form `DNS:registry.example,IP:127.0.0.1`. Throws if openssl is missing.
 */
export async function certify(
  folder: string,
  name: string,
  altNames = '',
  issuer?: Certificate,
  days = 2,
): Promise<Certificate> {
  if (!(await program(['openssl'], 'openssl', (line) => console.error(line)))) throw new Error('openssl is missing')
  const [certFile, keyFile] = [join(folder, `${name}.pem`), join(folder, `${name}.key`)]
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', keyFile]
  const request = ['openssl', 'req', ...key, '-subj', `/CN=${name}`]
  if (issuer) {
    const [requestFile, extensions] = [join(folder, `${name}.csr`), join(folder, `${name}.ext`)]
    await run([...request, '-out', requestFile])
    writeFileSync(extensions, `subjectAltName=${altNames}\n`)
    const authority = ['-CA', issuer.certFile, '-CAkey', issuer.keyFile, '-CAcreateserial', '-days', `${days}`]
    await run(['openssl', 'x509', '-req', '-in', requestFile, ...authority, '-extfile', extensions, '-out', certFile])
  } else await run([...request, '-x509', '-days', `${days}`, '-out', certFile])
  return { certFile, keyFile, cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') }
}
