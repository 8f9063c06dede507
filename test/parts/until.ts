/** Waits for something, in place of a sleep. */

/** Milliseconds that a test waits for anything. */
export const waitMs = 30_000

/** Calls `check` every 20 ms until it gives a truthy value, and gives that value. Rejects after 30 s, naming `what`. */
export async function until<T>(what: string, check: () => T | Promise<T>): Promise<NonNullable<T>> {
  const deadline = Date.now() + waitMs
  for (;;) {
    const value = await check()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`waited 30 s for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Settles when a count has stayed the same for 100 ms: whoever counts is held back, or is done. */
export async function still(count: () => number): Promise<void> {
  for (let [quiet, last] = [0, Number.NaN]; quiet < 5; ) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    quiet = count() === last ? quiet + 1 : 0
    last = count()
  }
}
