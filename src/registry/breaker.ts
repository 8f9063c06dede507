/** Skips a registry that keeps failing, so that nobody waits for it, until one real request finds it well again. */

/** Called once with what became of an admitted request; `undefined` if that says nothing, since its client left. */
export type Report = (isWell: boolean | undefined) => void

/** Leave to ask. A `trial` asks a registry that failed lately, so nobody should wait for it. */
interface Admission {
  report: Report
  trial: boolean
}

/** Failures in a row that open the breaker. */
const maxFailures = 3
const firstPauseMs = 1000
const maxPauseMs = 30_000

/**
 * While it is open, it admits nothing, except one trial at a time: 1, 2, 4, … 30 s after the failure before. `now` is in
 * milliseconds; `onChange` is called when it opens and closes.
 */
export function createBreaker(now: () => number, onChange: (isOpen: boolean) => void) {
  let failures = 0
  let timesOpened = 0
  let pauseMs = 0
  let nextTrial = 0
  let isTrying = false

  const isOpen = () => failures >= maxFailures
  const pause = (milliseconds: number) => {
    pauseMs = Math.min(milliseconds, maxPauseMs)
    nextTrial = now() + pauseMs
  }
  const close = () => {
    failures = 0
    onChange(false)
  }
  const report = (admittedAt: number, isWell: boolean | undefined) => {
    // If the breaker has opened since, only a trial says more.
    if (timesOpened > admittedAt || isWell === undefined) return
    failures = isWell ? 0 : failures + 1
    if (!isOpen()) return
    timesOpened++
    pause(firstPauseMs)
    onChange(true)
  }
  const reportTrial: Report = (isWell) => {
    isTrying = false
    if (isWell === false) pause(pauseMs * 2)
    if (isWell && isOpen()) close()
  }
  return {
    isOpen,
    /** Leave to ask; undefined if the registry is to be skipped. */
    admit: (): Admission | undefined => {
      const admittedAt = timesOpened
      if (!isOpen()) return { report: (isWell) => report(admittedAt, isWell), trial: false }
      if (isTrying || now() < nextTrial) return undefined
      isTrying = true
      return { report: reportTrial, trial: true }
    },
    /** Leave for what is asked anyway, and is no trial: it can close the breaker, and its failures count while it is closed. */
    bypass: (): Report => {
      const admittedAt = timesOpened
      return (isWell) => {
        if (!isOpen()) report(admittedAt, isWell)
        else if (isWell && timesOpened === admittedAt) close()
      }
    },
  }
}
