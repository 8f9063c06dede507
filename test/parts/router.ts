/** Starts the router as a child process, in any of the four ways to run it. */
import { existsSync, readFileSync } from 'node:fs'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import denoConfig from '../../deno.json' with { type: 'json' }
import packageManifest from '../../package.json' with { type: 'json' }
import { noSecret } from './canary.ts'
import { adopt, type Child, start } from './children.ts'

export const root = fileURLToPath(new URL('../..', import.meta.url))

/** NODE_RUNS=package runs the output of `npm run build:package`, which starts in a third of the time. */
const onNode =
  process.env.NODE_RUNS === 'package' ? 'node dist/package/bin.js' : packageManifest.scripts.start.replace('exec ', '')

export const ways = {
  node: onNode.split(' '),
  bun: ['node_modules/.bin/bun', 'run', 'server.ts'],
  deno: denoConfig.tasks.start.replace(' deno ', ' node_modules/.bin/deno ').split(' '),
  binary: ['dist/combined-registry'],
} as const
export type Way = keyof typeof ways
/** The way that this test file uses. */
export const way = (process.env.WAY ?? 'node') as Way

export interface Router {
  way: Way
  url: string
  host: string
  pid: number
  /** The log: one object for each line. A line that is not JSON becomes `{ text: line }`. */
  log: () => Record<string, unknown>[]
  /** The log entries that must not happen, whatever clients and registries do: errors, and lines that are not JSON. */
  odd: () => Record<string, unknown>[]
  /** The peak resident memory so far, in MiB; undefined if there is no /proc. */
  peakMemory: () => number | undefined
  /** Sends the signal (SIGTERM if none is given), waits until it has ended, and gives the exit code. */
  stop: (signal?: NodeJS.Signals) => Promise<number | null>
  child: Child
}

/**
 * Starts the router on a free port and waits until it listens. Throws if it ends first. OPEN_FILES, which is no setting of it, limits
 * its files.
 */
export async function startRouter(
  way: Way,
  env: Record<string, string>,
  onLine?: (line: Record<string, unknown>) => void,
): Promise<Router> {
  const { OPEN_FILES: files } = env
  const child = start([...(files ? ['prlimit', `--nofile=${files}`] : []), ...ways[way]], {
    cwd: root,
    // The machine's own authorities are none of the test's.
    env: { HOST: '127.0.0.1', PORT: '0', AGGREGATE_HOSTNAME: 'registry.example', NODE_EXTRA_CA_CERTS: '', ...env },
    onLine: (line) => {
      noSecret('the log', line)
      onLine?.(parse(line))
    },
  })
  const listening = parse((await child.line(/"message":"listening"/)).input as string)
  const pid = Number(listening.pid)
  adopt(pid)
  await askedAtStart(child, 2 + (env.PROXIES ?? '').split(/[\s,]+/).filter(Boolean).length)
  const host = `127.0.0.1:${listening.port}`
  return {
    way,
    url: `http${env.TLS_CERT_FILE ? 's' : ''}://${host}`,
    host,
    pid,
    child,
    log: () => child.lines.map(parse),
    odd: () => child.lines.map(parse).filter(({ level, text }) => level === 'error' || text),
    peakMemory: () => {
      if (!existsSync(`/proc/${pid}/status`)) return undefined
      const [, kilobytes] = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
      return Math.round(Number(kilobytes) / 1024)
    },
    stop: async (signal = 'SIGTERM') => {
      // Signal the router itself: a launcher may not forward the signal.
      if (child.exited()) return child.ended
      process.kill(pid, signal)
      return child.ended
    },
  }
}

/** Waits until the router has asked each registry for the first time, so that no test counts that. Not long: one may hang. */
async function askedAtStart(child: Child, registries: number): Promise<void> {
  const deadline = Date.now() + 1500
  const asked = () => child.lines.filter((line) => line.includes('"asked at the start"')).length
  while (asked() < registries && !child.exited() && Date.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, 10))
}

function parse(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line)
  } catch {
    return { text: line }
  }
}
