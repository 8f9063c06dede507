/** How to listen, on Node, Bun and Deno: `node:http` on all three, since what passes then needs nothing in between. */
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { Entrance } from './entrance.ts'
import { faultOfHead } from './head.ts'
import { addressOf, Lines } from './lines.ts'
import { pauseBeneath } from './pause.ts'
import { type Connection, type Handler, hasBody, isDeno } from './runtime.ts'
import { reset, send } from './send.ts'
import type { Pair } from './tls.ts'

export interface ListenOptions {
  /** 0 for a free one. */
  port: number
  host: string
  /** Seconds without a byte, either way, that end a stream. */
  idleTimeout: number
  /** Called with how many connections are open, for each that is closed to leave descriptors for registries. */
  onFull?: (open: number) => void
}

/** A client that pipelines more loses its connection. No registry client is known to pipeline at all. */
const maxWaiting = 100
const keepAliveMs = 75_000
const maxHeaderBytes = 65_536
/** How many connections may wait to be accepted. Who finds no place tries again after a second. The kernel may allow fewer. */
const backlog = 4096

/** Listens; with `tls` it serves https. Rejects if it cannot. */
export async function listen(handler: Handler, options: ListenOptions, tls?: Pair) {
  const lines = new Lines(options.onFull ?? (() => {}))
  const entrance = new Entrance()
  const server = createServer(handler, options.idleTimeout, { lines, entrance }, tls)
  // Node would drop the fields after the 2,000th in silence.
  server.maxHeadersCount = 0
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port: options.port, host: options.host, backlog }, () => resolve())
  })
  const { port } = server.address() as AddressInfo
  server.on('connection', (socket: Socket) => {
    // Bun and Deno accept all that wait at once.
    if (!isDeno && !bun) entrance.came()
    lines.open(socket)
  })
  server.on('secureConnection', pauseBeneath)
  const hearing = isDeno ? keepHearing(server) : undefined
  let isStopped = false
  if (bun) setInterval(collect, collectMs).unref()
  return {
    port,
    /** With `tls`: connections to come get this certificate; those there are go on. Throws if it cannot be used. */
    renew: (pair: Pair) => {
      if (server.setSecureContext) return server.setSecureContext(pair)
      if (isStopped) return
      // Bun has no setSecureContext (oven-sh/bun#43815), but can listen again at once. If it cannot, the process ends.
      server.removeAllListeners('error').close()
      server.listen({ port, host: options.host, tls: pair } as object)
    },
    /** Accepts no more connections and closes the idle ones. Transfers in flight go on. */
    stop: () => {
      isStopped = true
      clearInterval(hearing)
      server.close()
    },
    /** Ends all connections. No answer may be under way; a request that comes now is not carried out. */
    end: () => {
      server.removeAllListeners('request').on('request', ({ socket }: IncomingMessage) => socket.destroy())
      for (const socket of lines.sockets) socket.end()
    },
    /** Resets all connections, so that a client hears of the end even if it has not read what was sent before. */
    cut: () => {
      for (const socket of lines.sockets) reset(socket)
    },
  }
}

interface Arriving {
  lines: Lines
  entrance: Entrance
}

function createServer(
  handler: Handler,
  idleSeconds: number,
  { lines, entrance }: Arriving,
  tls: Pair | undefined,
): https.Server {
  const idleMs = Math.ceil(idleSeconds * 1000)
  return createAdaptorServer({
    createServer: (tls ? https : http).createServer,
    // HTTP/1.0 needs no Host field, and health checks of balancers send none.
    hostname: 'localhost',
    fetch: async (request, bindings) => {
      const incoming = bindings.incoming as IncomingMessage
      const outgoing = bindings.outgoing as ServerResponse
      const { socket } = incoming
      const line = lines.of(socket)
      const onMove = () => lines.moved(line)
      if (line.waiting === maxWaiting) {
        socket.destroy()
        return RESPONSE_ALREADY_SENT
      }
      const { waiting, last } = line
      const sent = sentOf(outgoing, socket, () => {
        line.waiting--
        onMove()
      })
      line.waiting++
      line.last = sent
      // One answer at a time: what a client pipelines and does not read costs no more than its first answer.
      if (waiting > 0 && (!(await last) || line.isClosing)) return RESPONSE_ALREADY_SENT
      const turn = line.outgoing ? undefined : entrance.turn(line.source, () => outgoing.destroyed)
      if (turn && !(await turn)) return RESPONSE_ALREADY_SENT
      line.outgoing = outgoing
      onMove()
      const onStream = () => {
        hasPassed = true
        onMove()
      }
      const fault = faultOfHead(incoming)
      if (fault) {
        line.isClosing = true
        send(fault, incoming, outgoing, idleMs, onStream)
        return RESPONSE_ALREADY_SENT
      }
      keepTarget(request, incoming.url as string)
      const { upload, bodyRead } = uploadOf(request, incoming, idleMs, onMove)
      const response = await handler(request, { address: addressOf(socket), sent, upload, bodyRead })
      if (response.headers.get('Connection') === 'close') line.isClosing = true
      send(response, incoming, outgoing, idleMs, onStream)
      return RESPONSE_ALREADY_SENT
    },
    // An upload may take hours; a token may take 14 KB.
    serverOptions: {
      ...tls,
      requestTimeout: 0,
      headersTimeout: idleMs,
      connectionsCheckingInterval: Math.ceil(idleSeconds * 250),
      keepAliveTimeout: keepAliveMs,
      maxHeaderSize: maxHeaderBytes,
    },
  }) as https.Server
}

/** The adapter resolves `..` and escapes. The router must match what came, byte for byte (RFC 9112, section 3.2). */
function keepTarget(request: Request, url: string): void {
  const target = url.startsWith('/') ? url : url.replace(/^https?:\/\/[^/?#]*/i, '')
  if (!request.url.endsWith(target)) Object.defineProperty(request, 'url', { value: `http://localhost${target}` })
}

/** Settles when an answer has left: true if it was sent whole. `onEnd` is called just before. */
function sentOf(outgoing: ServerResponse, socket: Socket, onEnd: () => void): Promise<boolean> {
  return new Promise((resolve) => {
    outgoing.once('close', () => {
      onEnd()
      resolve(outgoing.writableFinished)
    })
    // An answer that waits its turn behind others does not hear that its connection has ended.
    if (outgoing.socket) return
    const end = () => !outgoing.socket && outgoing.destroy().emit('close')
    socket.setMaxListeners(0).once('close', end)
    outgoing.once('close', () => socket.off('close', end))
  })
}

/** The body of a request. Its connection ends if nothing comes for `idleMs`, but only until the body has come. */
function uploadOf(
  request: Request,
  incoming: IncomingMessage,
  idleMs: number,
  onMove: () => void,
): Pick<Connection, 'upload' | 'bodyRead'> {
  if (!hasBody(request)) return {}
  const { socket } = incoming
  socket.setTimeout(idleMs)
  const read = incoming.read.bind(incoming)
  incoming.read = (size) => {
    const chunk = read(size)
    if (chunk !== null) onMove()
    return chunk
  }
  const bodyRead = new Promise<void>((resolve) => incoming.once('end', resolve))
  // From then on the registry thinks, and has deadlines of its own.
  bodyRead.then(() => socket.setTimeout(0))
  return { upload: incoming, bodyRead }
}

const { Bun: bun } = globalThis as { Bun?: { gc: (now: boolean) => void } }
/** Whether any of a layer has passed since the last collection. */
let hasPassed = false
const collectMs = 2000
/** Bun keeps the buffers of what has passed, up to 100 MiB with 100 slow clients. Collecting them takes it 15 ms. */
function collect(): void {
  if (hasPassed) bun?.gc(true)
  hasPassed = false
}

const hearMs = 100

/**
 * Once too many files were open, Deno (2.9.5) hears of no connection any more, and reports no error. To say again that it listens
 * wakes it, and those that wait to be accepted stay.
 */
function keepHearing(server: object) {
  const { _handle: handle } = server as { _handle: { listen: (backlog: number) => void } }
  return setInterval(() => handle.listen(backlog), hearMs).unref()
}
