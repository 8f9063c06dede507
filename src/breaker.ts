/** Skips a registry that keeps failing, so that nobody waits for it, until one real request has found it well again. */

/** Told once what became of an admitted request: `undefined` where it says nothing, as where the client left. */
export type Report = (well: boolean | undefined) => void

/** A request that may be asked now; a `trial` is one of a registry that failed lately, so nobody should wait for it. */
interface Admission {
  report: Report
  trial: boolean
}

/** Failures in a row that open it. */
const patience = 3
const firstPause = 1000
const longestPause = 30_000

/**
 * It admits a request, or gives nothing: then it is not to be asked. Open, it admits one at a time, 1, 2, 4, … 30 s after the
 * failure before. `now` is in milliseconds; `onChange` is told when it opens and closes.
 */
export function createBreaker(now: () => number, onChange: (open: boolean) => void) {
  let failures = 0
  let opened = 0
  let pause = 0
  let nextTrial = 0
  let trying = false

  const wait = (milliseconds: number) => {
    pause = Math.min(milliseconds, longestPause)
    nextTrial = now() + pause
  }
  const reportSince = (then: number, well: boolean | undefined) => {
    // Where it opened after this one was admitted, only a trial says more.
    if (opened > then || well === undefined) return
    failures = well ? 0 : failures + 1
    if (failures < patience) return
    opened++
    wait(firstPause)
    onChange(true)
  }
  const reportTrial: Report = (well) => {
    trying = false
    if (well === false) wait(pause * 2)
    if (!well) return
    failures = 0
    onChange(false)
  }
  return (): Admission | undefined => {
    const then = opened
    if (failures < patience) return { report: (well) => reportSince(then, well), trial: false }
    if (trying || now() < nextTrial) return undefined
    trying = true
    return { report: reportTrial, trial: true }
  }
}
