/** Starts a scripted upstream on a real socket, for what no real registry does on demand. */
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'

/** A request that the upstream received. */
export interface Recorded {
  method: string
  target: string
  headers: http.IncomingHttpHeaders
  /** Bytes of the body so far. */
  bytes: number
  /** Whether the whole body was received. */
  complete: boolean
  /** Whether the connection closed before the response was finished. */
  broken: boolean
}

export interface Scripted {
  /** `127.0.0.1:PORT`. */
  host: string
  requests: Recorded[]
  sockets: Set<Socket>
  close: () => Promise<void>
}

/** Handles one request. */
export type Script = (request: http.IncomingMessage, response: http.ServerResponse, recorded: Recorded) => void

/** What `check` asks, and each router once at its start. */
const isCheck = ({ headers }: http.IncomingMessage) => headers['user-agent']?.startsWith('combined-registry-check ')
const well = answer(200, {}, '{}')

/**
 * Starts it on a free port. Each request is recorded before the script gets it. With a certificate it serves https. The question
 * that each router asks at its start is answered with 200 and not recorded, unless `seesChecks`.
 */
export async function scripted(
  script: Script,
  certificate?: { cert: string; key: string },
  seesChecks = false,
): Promise<Scripted> {
  const requests: Recorded[] = []
  const sockets = new Set<Socket>()
  const listen: http.RequestListener = (request, response) => {
    const { method = '', url = '', headers } = request
    const recorded = { method, target: url, headers, bytes: 0, complete: false, broken: false }
    if (isCheck(request) && !seesChecks) return well(request, response, recorded)
    requests.push(recorded)
    request.on('data', (chunk) => {
      recorded.bytes += chunk.length
    })
    request.on('end', () => {
      recorded.complete = request.complete
    })
    request.on('error', () => {})
    response.once('close', () => {
      recorded.broken = !response.writableFinished
    })
    response.on('error', () => {})
    script(request, response, recorded)
  }
  const options = { requestTimeout: 0, maxHeaderSize: 128 * 1024 }
  const server = certificate
    ? https.createServer({ ...options, ...certificate }, listen)
    : http.createServer(options, listen)
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    sockets,
    close: () => {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(() => resolve()))
    },
  }
}

/** A script that reads the whole request body, then sends this response. */
export function answer(status: number, headers: http.OutgoingHttpHeaders = {}, body = ''): Script {
  // What a registry says of itself: a bare 404 could be a balancer's.
  const fields = status === 404 && !body ? { 'Docker-Distribution-Api-Version': 'registry/2.0', ...headers } : headers
  return (request, response) => {
    const end = () => response.writeHead(status, fields).end(body)
    if (request.readableEnded) end()
    else request.on('end', end).resume()
  }
}
