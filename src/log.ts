/** One line per fact: JSON for machines, `key=value` for people. */

export type Level = 'debug' | 'info' | 'warn' | 'error'
export type LogFields = Readonly<Record<string, unknown>>
type Write = (lines: string) => void
export type Log = (level: Level, message: string, fields?: LogFields) => void

export interface LogSettings {
  logFormat: 'json' | 'text'
  /** The least level that is written. */
  logLevel: Level
}

const levels: readonly Level[] = ['debug', 'info', 'warn', 'error']

/** Values are encoded as JSON in both formats, so that no client can start a line of its own. */
export function createLog({ logFormat, logLevel }: LogSettings, write: Write): Log {
  const least = levels.indexOf(logLevel)
  let [at, time] = [0, '']
  return (level, message, fields = {}) => {
    if (levels.indexOf(level) < least) return
    if (Date.now() !== at) {
      at = Date.now()
      time = new Date(at).toISOString()
    }
    if (logFormat === 'json') {
      // Joining two texts: to merge the objects first would cost as much as all the rest.
      const first = `{"time":"${time}","level":"${level}","message":${JSON.stringify(message)}`
      const rest = JSON.stringify(fields)
      write(rest === '{}' ? `${first}}` : `${first},${rest.slice(1)}`)
      return
    }
    const pairs = Object.entries(fields).filter(([, value]) => value !== undefined)
    write([time, level, message, ...pairs.map(([key, value]) => `${key}=${plain(value)}`)].join(' '))
  }
}

const batchMs = 10

/** Writes the lines of a few milliseconds together: a write costs several times what its line does. */
export function inBatches(write: Write): { write: Write; flush: () => void } {
  let lines: string[] = []
  const flush = () => {
    if (lines.length > 0) write(lines.join('\n'))
    lines = []
  }
  const add = (line: string) => {
    if (lines.push(line) === 1) setTimeout(flush, batchMs)
  }
  return { write: add, flush }
}

/** For people: no control characters, none that end a line or turn the direction of writing, and at most 600 characters. */
export function clean(text = ''): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '\ufffd').replace(/^(.{600}).+/su, '$1…')
}

function plain(value: unknown): string {
  const text = Array.isArray(value) ? value.map(inShort).join() : value
  return typeof text === 'string' && /^[\w./:@,-]+$/.test(text) ? text : JSON.stringify(text)
}

/** What a registry said: `proxy:absent:404:9ms`. */
function inShort(item: unknown): unknown {
  if (typeof item !== 'object' || item === null) return item
  const parts = Object.entries(item).filter(([, value]) => value !== undefined)
  return parts.map(([key, value]) => (key === 'milliseconds' ? `${value}ms` : value)).join(':')
}
