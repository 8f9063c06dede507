/** Authorities and certificates of a test's own, made by openssl. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './children.ts'
import { program } from './packages.ts'

/** Paths, and what is in them. */
export interface Certificate {
  certFile: string
  keyFile: string
  cert: string
  key: string
}

/** One that signs itself, or that `by` signs for these names: `DNS:registry.example,IP:127.0.0.1`; it lives for so many days. */
export async function certify(
  folder: string,
  name: string,
  names = '',
  by?: Certificate,
  days = 2,
): Promise<Certificate> {
  if (!(await program(['openssl'], 'openssl', (line) => console.error(line)))) throw new Error('openssl is missing')
  const [certFile, keyFile] = [join(folder, `${name}.pem`), join(folder, `${name}.key`)]
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', keyFile]
  const request = ['openssl', 'req', ...key, '-subj', `/CN=${name}`]
  if (by) {
    const [asked, extensions] = [join(folder, `${name}.csr`), join(folder, `${name}.ext`)]
    await run([...request, '-out', asked])
    writeFileSync(extensions, `subjectAltName=${names}\n`)
    const authority = ['-CA', by.certFile, '-CAkey', by.keyFile, '-CAcreateserial', '-days', `${days}`]
    await run(['openssl', 'x509', '-req', '-in', asked, ...authority, '-extfile', extensions, '-out', certFile])
  } else await run([...request, '-x509', '-days', `${days}`, '-out', certFile])
  return { certFile, keyFile, cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') }
}
