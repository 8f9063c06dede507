/** Child processes and temporary folders that are removed when this process ends, even if it is killed. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { waitMs } from './until.ts'

export interface Child {
  pid: number
  /** Every line of stdout and stderr so far. */
  lines: string[]
  /** The first line that matches, past or future; rejects after 30 s, or if the program ends without such a line. */
  line: (pattern: RegExp) => Promise<RegExpMatchArray>
  /** Its exit code; null if a signal ended it. Rejects if it cannot be started. */
  ended: Promise<number | null>
  exited: () => boolean
  /** Sends the signal (SIGTERM if none is given) and waits until it has ended. Gives the exit code. */
  stop: (signal?: NodeJS.Signals) => Promise<number | null>
}

/**
 * Cleans up when its stdin closes, which also happens if this process is killed. Each line of its input names
 * a process, a folder or a command. It runs in its own process group, so Ctrl-C does not end it.
 */
const reaper = spawn(
  'sh',
  [
    '-c',
    `pids=' '
     while IFS= read -r line; do
       rest=\${line#?}
       case "$line$pids" in
         [+-]*" $rest "*) pids="\${pids%% $rest *} \${pids#* $rest }" ;;
       esac
       case $line in
         +*) pids="$pids$rest " ;;
         /*) folders="$folders '$line'" ;;
         !*) commands="$commands $rest;" ;;
       esac
     done
     [ "$pids" = ' ' ] || kill -9 $pids
     eval "$commands"
     eval "rm -rf $folders"`,
  ],
  { stdio: ['pipe', 'ignore', 'ignore'], detached: true },
)
reaper.unref()
const tellReaper = (line: string) => reaper.stdin.write(`${line}\n`)
;(reaper.stdin as unknown as { unref: () => void }).unref()

/** Makes a new folder. It is removed with its content when this process ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'combined-registry-'))
  tellReaper(folder)
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Kills a grandchild too when this process ends: for a child that only launches the real program. */
export function adopt(pid: number): void {
  tellReaper(`+${pid}`)
}

/** Runs a shell command when this process ends. */
export function atEnd(command: string): void {
  tellReaper(`!${command}`)
}

export interface Options {
  env?: Record<string, string | undefined>
  cwd?: string
  onLine?: (line: string) => void
  /** Makes it the leader of its own process group, as a shell does with what is typed. */
  ownGroup?: boolean
}

/** Starts a program. `env` is added to this process's environment; `onLine` gets each line of stdout and stderr. */
export function start(command: string[], { env, cwd, onLine, ownGroup }: Options = {}): Child {
  const [program, ...args] = command as [string, ...string[]]
  const child: ChildProcess = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
    cwd,
    detached: ownGroup,
  })
  if (child.pid) tellReaper(`+${child.pid}`)
  const lines: string[] = []
  const waiting = new Set<(line: string) => void>()
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream as NodeJS.ReadableStream }).on('line', (line) => {
      lines.push(line)
      onLine?.(line)
      for (const inspect of waiting) inspect(line)
    })
  }
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      tellReaper(`-${child.pid}`)
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
        const timer = setTimeout(fail, waitMs, 'had 30 s for')
        const inspect = (line: string) => {
          const found = line.match(pattern)
          if (!found) return
          waiting.delete(inspect)
          clearTimeout(timer)
          resolve(found)
        }
        waiting.add(inspect)
        for (const line of lines) inspect(line)
        const onEnd = () => {
          clearTimeout(timer)
          fail('ended without')
        }
        ended.then(onEnd, onEnd)
      }),
    stop: async (signal = 'SIGTERM') => {
      child.kill(signal)
      return ended
    },
  }
}

/** Runs a program to its end and gives its output. Rejects with the output if the exit code is not 0. */
export async function run(command: string[], options: Options = {}): Promise<string> {
  const child = start(command, options)
  const code = await child.ended
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}:\n${child.lines.join('\n')}`)
  return child.lines.join('\n')
}

/** Whether the PATH has a program of this name. */
export async function onPath(program: string): Promise<boolean> {
  const child = start(['sh', '-c', `command -v ${program}`])
  return (await child.ended) === 0
}
