/** Sets of repository names, written as globs: `*` is anything within a component, `**` anything. Pure. */

export class Globs {
  readonly globs: readonly string[]
  readonly #parsed: readonly string[][]

  constructor(globs: readonly string[]) {
    this.globs = globs
    this.#parsed = globs.map((glob) => glob.match(/\*\*|./g) ?? [])
  }

  get isEmpty(): boolean {
    return this.globs.length === 0
  }

  /** Whether every name is among them. */
  get isAll(): boolean {
    return this.globs.includes('**')
  }

  has(name: string): boolean {
    return this.isAll || this.#parsed.some((glob) => matches(glob, name))
  }
}

/**
 * A regular expression would try every way to share a name out among the stars. This reads the name once, and keeps which
 * beginnings of the glob match what was read: `matched[2]` is for its first two parts.
 */
function matches(glob: readonly string[], name: string): boolean {
  const matched = [true]
  for (const [at, part] of glob.entries()) matched.push(matched[at] === true && isStar(part))
  for (const character of name) {
    let before = false
    for (let at = 0; at < matched.length; at++) {
      const was = matched[at] === true
      const [last, next] = [glob[at - 1], glob[at]]
      const takesMore = was && (next === '**' || (next === '*' && character !== '/'))
      const takesIt = before && last === character
      const takesNothing = matched[at - 1] === true && isStar(last)
      matched[at] = takesMore || takesIt || takesNothing
      before = was
    }
  }
  return matched.at(-1) === true
}

const isStar = (part: string | undefined) => part === '*' || part === '**'
