/** The bcrypt file of users, and which hashes are compared for a login. */
import { textOf } from '../runtime/files.ts'

/** The hash of each user's password. */
export type Users = ReadonlyMap<string, string>

/** `USER:HASH` lines, as `htpasswd -B` writes them. Throws an Error whose message ends the sentence "FILE …". */
export function readUsers(path: string): Users {
  const users = new Map<string, string>()
  for (const [i, line] of textOf(path).split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const [, user, hash] = /^([^:]+):(\$2[aby]\$(?:0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53})$/.exec(line.trim()) ?? []
    if (!user || !hash)
      throw new Error(`must have a user and a bcrypt hash in each line (htpasswd -B), not so line ${i + 1}`)
    users.set(user, hash)
  }
  if (users.size === 0) throw new Error('has no user')
  return users
}

/** A hash of this cost, of a password that nobody knows. */
const hashOfNobody = (cost: number) =>
  `$2b$${`${cost}`.padStart(2, '0')}$abcdefghijklmnopqrstuu5Ls8dVrS3mYyNnUbkRCvY1aG2J1gWq2`

const costOf = (hash: string) => Number(hash.slice(4, 6))

export function highestCost(users: Users): number {
  return Math.max(...[...users.values()].map(costOf))
}

/**
 * The hashes to compare with a password, the user's own first. All together they take as long as one of the cost `highest`, for
 * every user: each cost takes twice as long as the one below it, so a hash of cost 8 and others of 8 and 9 take as long as one of 10.
 */
export function hashesFor(own: string | undefined, highest: number): string[] {
  if (own === undefined) return [hashOfNobody(highest)]
  const fill = Array.from({ length: highest - costOf(own) }, (_, i) => hashOfNobody(costOf(own) + i))
  return [own, ...fill]
}
