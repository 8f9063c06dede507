/** Files that settings name: their text, and whether they changed. */
import { readFileSync, statSync } from 'node:fs'

/** Throws an Error whose message ends the sentence "FILE …". */
export function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`cannot be read: ${(error as NodeJS.ErrnoException).code}`)
  }
}

/** Another one as soon as one of the files is; it follows symlinks, which are how Kubernetes swaps what it mounts. */
export function stampOf(...paths: string[]): string {
  const stamps = paths.map((path) => statSync(path, { throwIfNoEntry: false }))
  return stamps.map((stat) => `${stat?.mtimeMs} ${stat?.ino} ${stat?.size}`).join()
}
