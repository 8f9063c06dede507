/** Files that settings name: their text, and what they hold after they changed. */
import { readFileSync, statSync } from 'node:fs'

/** Throws an Error whose message ends the sentence "FILE …". */
export function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`cannot be read: ${(error as NodeJS.ErrnoException).code}`)
  }
}

/** A file that holds a secret and nothing else; throws likewise. */
export function secretIn(path: string): string {
  const text = textOf(path).replace(/\r?\n$/, '')
  if (text === '') throw new Error('is empty')
  return text
}

/**
 * Gives what is read of the files, and looks at them once a second: where they changed, `use` gets what is read anew. What
 * cannot be read or used leaves things as they were; `failed` hears why. Of files that are written one after the other, the
 * first look may fail.
 */
export function follow<T>(
  paths: string[],
  read: () => T,
  use: (value: T) => unknown,
  failed: (cause: string) => void,
): T {
  // The stamp first: what is written while this reads is seen the next time.
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
  setInterval(look, 1000).unref()
  return first
}

/** Another one as soon as one of the files is; it follows symlinks, which are how Kubernetes swaps what it mounts. */
function stampOf(paths: string[]): string {
  const stamps = paths.map((path) => {
    try {
      // A chmod or chown may be what lets this be read; on Deno its time has whole seconds.
      const { mtimeMs, ctimeMs, ino, size, mode, uid, gid } = statSync(path)
      return [mtimeMs, ctimeMs, ino, size, mode, uid, gid].join(' ')
    } catch (error) {
      return (error as NodeJS.ErrnoException).code
    }
  })
  return stamps.join()
}
