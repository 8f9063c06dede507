/** Digests of content (OCI image-spec, "Digests"): the only place that computes them. */
import { createHash, type Hash } from 'node:crypto'

/** The algorithms every client and registry knows. */
const known = /^(sha256|sha512):/

/** Whether content of this digest can be checked here. */
export const isCheckable = (digest: string) => known.test(digest)

/** Whether content has a digest; false if that cannot be checked. */
export function hasDigest(content: Uint8Array, digest: string): boolean {
  if (!isCheckable(digest)) return false
  const check = checkOf(digest)
  check.hash.update(content)
  return check.isRight()
}

/** The digest of content, as registries compute it if nobody asks for another algorithm. */
export const digestOf = (content: Uint8Array) => `sha256:${createHash('sha256').update(content).digest('hex')}`

/** Checks content that comes in parts: `hash` is to be given all of it. Throws for an algorithm that is not known. */
export function checkOf(digest: string): { hash: Hash; isRight: () => boolean } {
  const [algorithm = '', hex] = digest.split(':')
  const hash = createHash(algorithm)
  return { hash, isRight: () => hash.digest('hex') === hex }
}
