/** Reads JSON that a stranger may have made up to cost as much as it can. */

/** Deeper than anything that clients and registries say. */
const maxDepth = 100
/** Commas, lists and objects: twice as many as 4 MiB of descriptors have. */
const maxParts = 300_000

/** The value of a JSON text; undefined if it is none, or would take long to read. */
export function json(bytes: Uint8Array | undefined): unknown {
  if (!bytes) return undefined
  const { depth, parts } = outlineOf(bytes)
  if (depth > maxDepth || parts > maxParts) return undefined
  try {
    return JSON.parse(new TextDecoder().decode(bytes))
  } catch {
    return undefined
  }
}

/** What shows of a JSON text without reading its values. */
export interface Outline {
  /** Whether it is one whole object, as far as its brackets and quotes show. */
  isObject: boolean
  /** How deep it is nested. */
  depth: number
  parts: number
  /** Of the members that were asked for: the first character of the value. */
  members: Map<string, string>
}

/**
 * It takes a few milliseconds a MiB, whatever the text is. To parse a text that is nested deep, or has many small values, takes a hundred
 * times as long.
 */
export function outlineOf(bytes: Uint8Array, names: readonly string[] = []): Outline {
  const outline = { isObject: false, depth: 0, parts: 0, members: new Map<string, string>() }
  let [depth, textBegin, textEnd] = [0, 0, 0]
  let member: string | undefined
  let isObject: boolean | undefined
  for (let at = 0; at < bytes.length; at++) {
    const character = characters[bytes[at] as number] as string
    if (character === ' ') continue
    isObject = depth > 0 ? isObject : isObject === undefined && character === '{'
    if (member !== undefined) outline.members.set(member, character)
    member = undefined
    if (character === '"') {
      textBegin = at + 1
      at = endOfText(bytes, textBegin)
      textEnd = at
    } else if (character === ':') {
      if (depth === 1) member = names.find((name) => isText(bytes, textBegin, textEnd, name))
    } else if (character === ',') outline.parts++
    else if (character === '[' || character === '{') {
      outline.parts++
      depth++
      if (depth > outline.depth) outline.depth = depth
    } else if (character === ']' || character === '}') depth--
  }
  outline.isObject = isObject === true && depth === 0
  return outline
}

/** Each byte as a character. All kinds of space are the same, the mark before UTF-8 too. */
const characters = Array.from({ length: 256 }, (_, byte) => {
  const character = String.fromCharCode(byte)
  return '\t\n\r\xef\xbb\xbf'.includes(character) ? ' ' : character
})

/** The place of the quote that ends a text. */
function endOfText(bytes: Uint8Array, begin: number): number {
  let at = begin
  while (at < bytes.length && bytes[at] !== quote) at += bytes[at] === backslash ? 2 : 1
  return at
}
const [quote, backslash] = new TextEncoder().encode('"\\')

function isText(bytes: Uint8Array, begin: number, end: number, text: string): boolean {
  if (end - begin !== text.length) return false
  for (let at = 0; at < text.length; at++) if (bytes[begin + at] !== text.charCodeAt(at)) return false
  return true
}
