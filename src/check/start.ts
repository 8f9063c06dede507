/** What the router says of itself at the start. It only reads, and never refuses to start because of what it reads. */
import type { Log } from '../log.ts'
import type { Effect } from './effect.ts'
import type { Finding } from './findings.ts'
import { type Around, judgePing } from './reach.ts'
import { pinged, type Subject } from './subject.ts'

/** The settings in effect, and what they show by themselves. */
export function saySettings({ settings }: Effect, found: readonly Finding[], log: Log): void {
  const textOf = (isWanted: boolean) =>
    Object.fromEntries(settings.filter(({ isSet }) => isSet === isWanted).map(({ name, value }) => [name, value]))
  const [set, defaults] = [textOf(true), textOf(false)]
  log('info', 'settings', { set, defaults })
  logFindings(found, log)
}

/** Logs findings, with what to do. */
function logFindings(found: readonly Finding[], log: Log): void {
  for (const { what, code, about, remedy } of found) {
    const fields = { ...about, code, remedy }
    log('warn', what, fields)
  }
}

/** Asks each registry once for `/v2/`, and logs what it says. */
export async function askOnce(subjects: readonly Subject[], around: Around, log: Log): Promise<void> {
  const ask = async (subject: Subject) => {
    const told = await pinged(subject)
    const { status, verdict, reason, cause } = told
    const milliseconds = Math.round(told.milliseconds)
    log('info', 'asked at the start', { upstream: subject.name, status, verdict, milliseconds, reason, cause })
    logFindings(await judgePing(subject, told, around), log)
  }
  await Promise.all(subjects.map(ask))
}
