/** A read whose answer may be remembered, or shared with others that ask the same. */
import { createHash } from 'node:crypto'
import type { Match } from '../../routing.ts'
import type { Registry } from '../registry/answer.ts'
import { conditions, maxOfReads, passedOn } from '../registry/headers.ts'

/** A question for `/v2/`, as far as its answer depends on the client. */
export interface PingReading extends Pick<Reading, 'login'> {
  userAgent: string
}

export interface Reading {
  matched: Match
  /** The name as memory keeps it. */
  name: string
  query: string
  accept: string
  /** Path, query and Accept: all that the answer depends on, except the login. */
  question: string
  /** Whether the answer also depends on a range or a condition. */
  isPartial: boolean
  /** Whether the client wants the registry to be asked (RFC 9111, section 5.2.1.4). */
  mustAsk: boolean
  /** A hash of the client's login; empty if it has none, or if no registry gets it. */
  login: string
}

/** What is read, and the name that memory keeps it under. */
export interface Subject {
  matched: Match
  fullName: string
}

/** `sharesLogin`: whether a registry gets the client's login. A login that this router checks itself changes no answer. */
export function readingOf(
  request: Request,
  { matched, fullName }: Subject,
  query: string,
  sharesLogin: boolean,
): Reading {
  const { headers } = request
  const field = passedOn(headers)
  const accept = field('accept') ?? ''
  return {
    matched,
    name: fullName,
    query,
    accept,
    question: `${matched.path}${query} ${accept}`,
    isPartial: conditions.some((name) => headers.has(name)),
    mustAsk: /\bno-cache\b/i.test(headers.get('cache-control') ?? ''),
    login: sharesLogin ? hashOf(field('authorization'), field('cookie')) : '',
  }
}

function hashOf(...secrets: (string | null)[]): string {
  if (secrets.every((one) => one === null)) return ''
  return createHash('sha256').update(JSON.stringify(secrets)).digest('base64')
}

/** `sharesLogin`: as for `readingOf`. */
export function pingReadingOf({ headers }: Request, sharesLogin: boolean): PingReading {
  const field = passedOn(headers)
  const login = sharesLogin ? hashOf(field('authorization'), field('cookie')) : ''
  return { login, userAgent: field('user-agent') ?? '' }
}

/** Whether other clients may get what a registry answers to this one: not if it was told who the client is. */
export function mayShare(from: Registry, { login }: Reading): boolean {
  return !from.forwardsLogin || login === ''
}

/** What tells apart the clients that a registry knows; empty for a registry that knows none. */
export function loginAt(from: Registry, { login }: Pick<Reading, 'login'>): string {
  return from.forwardsLogin ? login : ''
}

/** Whether Accept lists the type itself. A wildcard leaves the choice to the registry, and so does one that no registry would get. */
export function accepts({ accept }: Pick<Reading, 'accept'>, type: string): boolean {
  if (accept.length > maxOfReads) return false
  const wanted = essence(type)
  return accept === type || accept.split(',').some((one) => essence(one) === wanted)
}

/** A media type without its parameters. */
const essence = (text: string) => text.replace(/;.*/, '').trim().toLowerCase()
