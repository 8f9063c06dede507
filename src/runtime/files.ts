/** Files that settings name: their text, and their new text when they change. */
import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import { isAbsolute } from 'node:path'

const lookMs = 1000

/** The text of a file. Throws an Error whose message ends the sentence "FILE …". */
export function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`cannot be read: ${(error as NodeJS.ErrnoException).code}`)
  }
}

/** A file that holds only a secret. Throws as `textOf` does. */
export function secretIn(path: string): string {
  const text = textOf(path).replace(/\r?\n$/, '')
  if (text === '') throw new Error('is empty')
  return text
}

/** Checks that a path is one of a program that may be run. Throws as `textOf` does. */
export function checkProgram(path: string): void {
  if (!isAbsolute(path)) throw new Error('must be the absolute path of a program')
  try {
    accessSync(path, constants.X_OK)
  } catch (error) {
    throw new Error(`cannot be run: ${(error as NodeJS.ErrnoException).code}`)
  }
  if (!statSync(path).isFile()) throw new Error('is no program')
}

/**
 * Gives what is read from the files now, and looks at them once a second. If one has changed, they are read again and `use` gets
 * the result. If that throws, everything stays as it was and `failed` gets the message. Files that are written one after the
 * other may fail at first.
 */
export function follow<T>(
  paths: string[],
  read: () => T,
  use: (value: T) => unknown,
  failed: (cause: string) => void,
): T {
  // The stamp comes first: what is written during the read is then seen at the next look.
  let seen = stampOf(paths)
  const look = async () => {
    const current = stampOf(paths)
    if (current === seen) return
    seen = current
    try {
      await use(read())
    } catch (error) {
      failed((error as Error).message)
    }
  }
  const first = read()
  setInterval(look, lookMs).unref()
  return first
}

/** Changes with any of the files. It follows symlinks, since Kubernetes swaps those. */
function stampOf(paths: string[]): string {
  const stamps = paths.map((path) => {
    try {
      // Mode and owner too: a chmod or chown may make the file readable. On Deno the times have whole seconds.
      const { mtimeMs, ctimeMs, ino, size, mode, uid, gid } = statSync(path)
      return [mtimeMs, ctimeMs, ino, size, mode, uid, gid].join(' ')
    } catch (error) {
      return (error as NodeJS.ErrnoException).code
    }
  })
  return stamps.join()
}
