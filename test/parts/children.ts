/** Child processes and folders that end with this process, however it ends. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

export interface Child {
  pid: number
  /** Every line it printed, on either output. */
  lines: string[]
  /** Settles with the first line that matches; rejects if it ends before one does. */
  line: (pattern: RegExp) => Promise<RegExpMatchArray>
  /** Its exit code; null where a signal ended it. */
  ended: Promise<number | null>
  exited: () => boolean
  /** Signals it and waits for its end. */
  stop: (signal?: NodeJS.Signals) => Promise<number | null>
}

/**
 * Reads what is to go from a pipe and removes it when the pipe closes, so that nothing is left behind even where this
 * process is killed. It is a process group of its own: a Ctrl-C does not reach it.
 */
const reaper = spawn(
  'awk',
  [
    `/^[+]/ { pids[substr($0, 2)] }
     /^-/ { delete pids[substr($0, 2)] }
     /^[/]/ { folders[$0] }
     /^!/ { commands[substr($0, 2)] }
     END {
       for (pid in pids) system("kill -9 " pid " 2>/dev/null")
       for (command in commands) system(command " >/dev/null 2>&1")
       for (folder in folders) system("rm -rf '" folder "'")
     }`,
  ],
  { stdio: ['pipe', 'ignore', 'ignore'], detached: true },
)
reaper.unref()
/** Milliseconds that a test waits for something. */
const patience = 30_000
const tell = (line: string) => reaper.stdin.write(`${line}\n`)
;(reaper.stdin as unknown as { unref: () => void }).unref()

/** A new folder, removed with everything in it when this process ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'combined-registry-'))
  tell(folder)
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Ends this process's grandchild too, where a child is only the launcher of it. */
export function adopt(pid: number): void {
  tell(`+${pid}`)
}

/** A shell command to run when this process ends. */
export function atEnd(command: string): void {
  tell(`!${command}`)
}

export interface Options {
  env?: Record<string, string | undefined>
  cwd?: string
  onLine?: (line: string) => void
}

/** Starts a program; `env` is added to this process's own. */
export function start(command: string[], { env, cwd, onLine }: Options = {}): Child {
  const [program, ...args] = command as [string, ...string[]]
  const child: ChildProcess = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
    cwd,
  })
  if (child.pid) tell(`+${child.pid}`)
  const lines: string[] = []
  const waiting = new Set<(line: string) => void>()
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream as NodeJS.ReadableStream }).on('line', (line) => {
      lines.push(line)
      onLine?.(line)
      for (const look of waiting) look(line)
    })
  }
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      tell(`-${child.pid}`)
      resolve(code)
    })
  })
  ended.catch(() => {})
  return {
    pid: child.pid as number,
    lines,
    ended,
    exited: () => child.exitCode !== null || child.signalCode !== null,
    line: (pattern) =>
      new Promise((resolve, reject) => {
        const fail = (why: string) => reject(new Error(`${command.join(' ')} ${why} ${pattern}:\n${lines.join('\n')}`))
        const late = setTimeout(fail, patience, 'had 30 s for')
        const look = (line: string) => {
          const found = line.match(pattern)
          if (!found) return
          waiting.delete(look)
          clearTimeout(late)
          resolve(found)
        }
        waiting.add(look)
        for (const line of lines) look(line)
        const gone = () => {
          clearTimeout(late)
          fail('ended without')
        }
        ended.then(gone, gone)
      }),
    stop: async (signal = 'SIGTERM') => {
      child.kill(signal)
      return ended
    },
  }
}

/** Runs a program to its end; rejects with all it printed where that is not a success. */
export async function run(command: string[], options: Options = {}): Promise<string> {
  const child = start(command, options)
  const code = await child.ended
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}:\n${child.lines.join('\n')}`)
  return child.lines.join('\n')
}

/** Waits until `look` gives something true, which it is asked every few milliseconds; rejects after 30 s. */
export async function until<T>(what: string, look: () => T | Promise<T>): Promise<NonNullable<T>> {
  const deadline = Date.now() + patience
  for (;;) {
    const seen = await look()
    if (seen) return seen
    if (Date.now() > deadline) throw new Error(`waited 30 s for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Whether a program of this name can be run. */
export async function onPath(program: string): Promise<boolean> {
  const child = start(['sh', '-c', `command -v ${program}`])
  return (await child.ended) === 0
}
