/** Runs a program that is asked once and answers once, such as one of docker's credential helpers. */
import { type ChildProcess, spawn } from 'node:child_process'
import process from 'node:process'

export interface Bounds {
  maxBytes: number
  seconds: number
}

/** The programs that run now: they end with this process. */
const running = new Set<ChildProcess>()

/**
 * What a program prints when it gets `input`. No shell reads the command, and what it prints as errors is dropped. Rejects with an
 * Error whose message ends the sentence "it …" and holds nothing that it printed.
 */
export function outputOf(program: string, args: string[], input: string, bounds: Bounds): Promise<string> {
  if (running.size === 0) process.once('exit', endAll)
  // A group of its own, so that what it started ends with it.
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'ignore'], detached: true })
  running.add(child)
  const chunks: Buffer[] = []
  let bytes = 0
  return new Promise<string>((resolve, reject) => {
    const fail = (why: string) => reject(new Error(why))
    const timer = setTimeout(() => fail(`gave no answer within ${bounds.seconds} s`), bounds.seconds * 1000)
    child.once('error', ({ code }: NodeJS.ErrnoException) => fail(`cannot be run: ${code}`))
    // It may end without reading.
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
    child.stdout?.on('data', (chunk: Buffer) => {
      bytes += chunk.byteLength
      if (bytes > bounds.maxBytes) return fail(`printed more than ${bounds.maxBytes} bytes`)
      chunks.push(chunk)
    })
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      if (code === 0) resolve(Buffer.concat(chunks).toString())
      else fail(`ended with ${code ?? signal}`)
    })
  }).finally(() => {
    running.delete(child)
    if (running.size === 0) process.off('exit', endAll)
    end(child)
  })
}

function endAll(): void {
  for (const child of running) end(child)
}

function end({ pid, exitCode, signalCode, stdout }: ChildProcess): void {
  stdout?.destroy()
  if (pid === undefined || exitCode !== null || signalCode !== null) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended just now.
  }
}
