/** The tools of the bench: router and nginx as an operator starts them, a delayed registry, measurements. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { cpus } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { adopt, run, start } from '../test/parts/children.ts'
import { startNginx } from '../test/parts/nginx.ts'
import { freePort } from '../test/parts/registries.ts'
import { root, type Way, ways } from '../test/parts/router.ts'
import type { Tls } from '../test/parts/schemes.ts'
import { until } from '../test/parts/until.ts'

/** A server to measure: a registry, nginx or a router. */
export interface Target {
  name: string
  url: string
  /** Its processes; empty if its CPU time and memory are not measured. */
  pids: () => number[]
  stop: () => Promise<unknown>
}

/**
 * Starts a router as an operator would, with its log in a file. `startMs`: milliseconds from start to first response.
 * Throws if it does not answer within 30 s.
 */
export async function launchRouter(
  way: Way,
  folder: string,
  environment: Record<string, string>,
): Promise<Target & { startMs: number }> {
  const port = await freePort()
  const scheme = environment.TLS_CERT_FILE ? 'https' : 'http'
  const env = {
    HOST: '127.0.0.1',
    PORT: `${port}`,
    AGGREGATE_HOSTNAME: `${scheme}://127.0.0.1:${port}`,
    ...environment,
  }
  const started = performance.now()
  const command = ['sh', '-c', `exec "$0" "$@" > ${join(folder, `${way}-${port}.log`)} 2>&1`, ...ways[way]]
  const child = start(command, { cwd: root, env })
  while (!(await isLive(scheme, port))) {
    if (child.exited() || performance.now() - started > 30_000) throw new Error(`${way} does not answer`)
  }
  const startMs = performance.now() - started
  const pids = () => tree(child.pid)
  pids().forEach(adopt)
  const stop = async () => {
    for (const pid of pids()) process.kill(pid, 'SIGKILL')
    await child.ended
  }
  return { name: way, url: `${scheme}://127.0.0.1:${port}`, pids, startMs, stop }
}

/** Connects to a server of this machine, over https without a look at its certificate. */
export function connect(scheme: string, port: number): net.Socket {
  return scheme === 'https'
    ? tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
    : net.connect(port, '127.0.0.1')
}

/** Asks /livez once, on a new connection. If nothing listens on the port, it gives false after 1 ms. */
function isLive(scheme: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(scheme, port)
    socket.write('GET /livez HTTP/1.1\r\nHost: x\r\n\r\n')
    socket.once('data', (data) => {
      socket.destroy()
      resolve(data.includes(' 200 '))
    })
    socket.once('error', () => setTimeout(resolve, 1, false))
  })
}

/**
 * Starts nginx with the usual fallback. Reads go to the cache, and to hosted if the cache fails or has nothing.
 * Writes go to hosted. Request bodies are not buffered. With `tls` it serves https.
 */
export async function launchNginx(folder: string, cache: string, hosted: string, tls?: Tls): Promise<Target> {
  const port = await freePort()
  const url = `${tls ? 'https' : 'http'}://127.0.0.1:${port}`
  const { TLS_CERT_FILE, TLS_KEY_FILE } = tls?.settings ?? {}
  const child = await startNginx(
    folder,
    url,
    'user root; worker_processes auto;',
    `upstream cache { server ${cache}; keepalive 256; }
      upstream hosted { server ${hosted}; keepalive 256; }
      server {
        listen 127.0.0.1:${port} ${tls ? 'ssl' : ''} backlog=4096;
        ${tls ? `ssl_certificate ${TLS_CERT_FILE}; ssl_certificate_key ${TLS_KEY_FILE};` : ''}
        client_max_body_size 0;
        keepalive_requests 1000000;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_request_buffering off;
        proxy_max_temp_file_size 0;
        location /v2/ {
          error_page 401 403 404 418 429 500 502 503 504 = @hosted;
          if ($request_method !~ ^(GET|HEAD)$) { return 418; }
          proxy_intercept_errors on;
          proxy_pass http://cache;
        }
        location @hosted { proxy_pass http://hosted; }
      }`,
  )
  const pids = () => tree(child.pid)
  pids().forEach(adopt)
  return { name: 'nginx', url, pids, stop: () => child.stop('SIGTERM') }
}

/** The ids of a process and all its descendants. */
function tree(pid: number): number[] {
  const parents = new Map<number, number>()
  for (const entry of readdirSync('/proc')) {
    if (/^\d+$/.test(entry)) parents.set(Number(entry), Number(statOf(Number(entry))[1]))
  }
  const family = [pid]
  for (const member of family) for (const [child, parent] of parents) if (parent === member) family.push(child)
  return family
}

/** The fields of /proc/PID/stat from the third on: state, parent, … */
function statOf(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')
  } catch {
    return []
  }
}

/** Seconds of CPU time so far. */
export function cpuSeconds({ pids }: Target): number {
  return sum(pids().map((pid) => (Number(statOf(pid)[11] ?? 0) + Number(statOf(pid)[12] ?? 0)) / 100))
}

/** Resident memory, in MiB. */
export function memoryMiB({ pids }: Target): number {
  return Math.round(sum(pids().map((pid) => (Number(statOf(pid)[21] ?? 0) * 4096) / 2 ** 20)))
}

/** Waits until the work of the previous measurement is over: the machine is more than 80 % idle for 0.2 s. */
export function settled(): Promise<unknown> {
  return until('the machine to be idle', async () => {
    const [idle, all] = processorTime()
    await new Promise((resolve) => setTimeout(resolve, 200))
    const [idleAfter, allAfter] = processorTime()
    return idleAfter - idle > 0.8 * (allAfter - all)
  })
}

/** CPU time of all cores since boot, in milliseconds: idle, and in total. */
function processorTime(): [idle: number, all: number] {
  const times = cpus().map((cpu) => cpu.times)
  return [sum(times.map(({ idle }) => idle)), sum(times.flatMap((time) => Object.values(time)))]
}

/** What `load()` measured. */
export interface Rate {
  /** Successful responses per second. */
  rate: number
  /** The 99th percentile of the latency, in milliseconds. */
  p99: number
  /** Seconds of CPU time for 1000 responses. */
  cpu: number
  /** Requests without a response, or with an error status code. */
  errors: number
}

/** Sends GET requests for these paths in turn with wrk, for `seconds` seconds. */
export async function load(
  folder: string,
  target: Target,
  { paths, accept, connections, seconds }: { paths: string[]; accept: string; connections: number; seconds: number },
): Promise<Rate> {
  const script = join(folder, 'load.lua')
  writeFileSync(
    script,
    `local paths = { ${paths.map((path) => `"${path}"`).join(', ')} }
    local turn = 0
    request = function()
      turn = turn % #paths + 1
      return wrk.format("GET", paths[turn])
    end
    done = function(summary, latency)
      local e = summary.errors
      local p99 = latency:percentile(99)
      print(string.format("RESULT %d %d %d %d", summary.requests, summary.duration, p99, e.connect + e.read + e.write + e.status))
    end`,
  )
  const before = cpuSeconds(target)
  const header = `Accept: ${accept}`
  const output = await run(['wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '-H', header, '-s', script, target.url])
  const numbers = /RESULT (\d+) (\d+) (\d+) (\d+)/.exec(output)?.slice(1).map(Number)
  const [requests = 0, microseconds = 0, p99 = 0, errors = 0] = numbers ?? []
  const successes = requests - errors
  const cpu = ((cpuSeconds(target) - before) / successes) * 1000
  return { rate: successes / (microseconds / 1e6), p99: p99 / 1000, cpu, errors }
}

/** Runs a command to its end and gives the seconds it took. */
export async function secondsOf(command: string[]): Promise<number> {
  const started = performance.now()
  await run(command)
  return (performance.now() - started) / 1000
}

export const sum = (values: number[]) => values.reduce((total, value) => total + value, 0)

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return (
    ((sorted[Math.floor((sorted.length - 1) / 2)] as number) + (sorted[Math.ceil((sorted.length - 1) / 2)] as number)) /
    2
  )
}
