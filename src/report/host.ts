/** Warns once if clients call this router by another name than it has. */
import { clean, type Log } from '../log.ts'
import { ownNames } from '../relay/names.ts'

/** `aggregate`: this router's public address. */
export function hostWarning(aggregate: URL, log: Log): (request: Pick<Request, 'headers'>) => void {
  const own = ownNames({ aggregate })
  let isDone = false
  return ({ headers }) => {
    const host = isDone ? undefined : headers.get('Host')?.toLowerCase()
    if (!host || own.includes(host)) return
    isDone = true
    const remedy = 'set AGGREGATE_HOSTNAME to it, or let what stands in front pass Host'
    log('warn', 'a client calls this router by another name than AGGREGATE_HOSTNAME', { host: clean(host), remedy })
  }
}
