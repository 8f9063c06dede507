/** One line a fact: JSON for machines, `key=value` for people. */
import type { Config } from './config.ts'

export type Level = Config['logLevel']
export type Fields = Readonly<Record<string, unknown>>
type Write = (lines: string) => void
export type Log = (level: Level, message: string, fields?: Fields) => void

const levels: readonly Level[] = ['debug', 'info', 'warn', 'error']

/** Values are encoded as JSON in both formats, so that no client can start a line of its own. */
export function createLog({ logFormat, logLevel }: Pick<Config, 'logFormat' | 'logLevel'>, write: Write): Log {
  const least = levels.indexOf(logLevel)
  let [at, time] = [0, '']
  return (level, message, fields = {}) => {
    if (levels.indexOf(level) < least) return
    if (Date.now() !== at) {
      at = Date.now()
      time = new Date(at).toISOString()
    }
    if (logFormat === 'json') {
      // Two objects as one: making one of them first would cost as much as all the rest.
      const first = `{"time":"${time}","level":"${level}","message":${JSON.stringify(message)}`
      const rest = JSON.stringify(fields)
      write(rest === '{}' ? `${first}}` : `${first},${rest.slice(1)}`)
      return
    }
    const pairs = Object.entries(fields).filter(([, value]) => value !== undefined)
    write([time, level, message, ...pairs.map(([key, value]) => `${key}=${plain(value)}`)].join(' '))
  }
}

/** Writes the lines of a few milliseconds together: a write costs several times what its line does. */
export function inBatches(write: Write): { write: Write; flush: () => void } {
  let lines: string[] = []
  const flush = () => {
    if (lines.length > 0) write(lines.join('\n'))
    lines = []
  }
  const add = (line: string) => {
    if (lines.push(line) === 1) setTimeout(flush, patience)
  }
  return { write: add, flush }
}

const patience = 10

/** For people: no control characters, none that end a line or turn the direction of writing, and not without end. */
export function clean(text = ''): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '\ufffd').replace(/^(.{600}).+/su, '$1…')
}

function plain(value: unknown): string {
  return typeof value === 'string' && /^[\w./:@-]+$/.test(value) ? value : JSON.stringify(value)
}
