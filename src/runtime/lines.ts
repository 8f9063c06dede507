/** What is known of each client's connection: what is under way on it, and whether it moves. */
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { Connections, type Held } from './connections.ts'
import { networkOf } from './networks.ts'
import { reset } from './send.ts'
import { maxFiles, sharesOf } from './shortage.ts'

/** A connection of a client. */
export interface Line extends Held {
  /** Requests that have come and are not answered whole. */
  waiting: number
  /** Whether the last request that came was answered whole. The next one begins then. */
  last: Promise<boolean>
  /** No request is begun any more: an answer says `Connection: close` (RFC 9112, section 9.6). */
  isClosing: boolean
  /** The answer that is under way, or was last. */
  outgoing?: ServerResponse
}

export class Lines {
  readonly sockets = new Set<Socket>()
  readonly #connections: Connections
  /** By address and port of the other end: with TLS, requests come on another socket than the one that was accepted. */
  readonly #byPeer = new Map<string, Line>()
  readonly #lines = new WeakMap<Socket, Line>()

  /** `onFull`: called with how many are open for each connection that is closed because of too many. */
  constructor(onFull: (open: number) => void) {
    const max = () => sharesOf(maxFiles()).clients
    // Once before there are any: see `readLimit`.
    max()
    this.#connections = new Connections(max, () => performance.now(), onFull)
  }

  /** A connection was accepted. It, or another one, is closed at once if they are too many. */
  open(socket: Socket): void {
    const peer = peerOf(socket)
    const line = newLine(socket)
    this.sockets.add(socket)
    this.#byPeer.set(peer, line)
    socket.once('close', () => {
      this.sockets.delete(socket)
      this.#connections.delete(line)
      if (this.#byPeer.get(peer) === line) this.#byPeer.delete(peer)
    })
    this.#connections.add(line)
  }

  /** The connection that a request has come on. */
  of(socket: Socket): Line {
    const known = this.#lines.get(socket)
    if (known) return known
    const line = this.#byPeer.get(peerOf(socket)) ?? newLine(socket)
    this.#lines.set(socket, line)
    return line
  }

  /** Its client took bytes, or sent some. */
  moved(line: Line): void {
    this.#connections.moved(line)
  }
}

const peerOf = ({ remoteAddress, remotePort }: Socket) => `${remoteAddress} ${remotePort}`

/** IPv4 in IPv6 is IPv4. */
export const addressOf = (socket: Socket) => socket.remoteAddress?.replace(/^::ffff:/, '')

function newLine(socket: Socket): Line {
  const line: Line = {
    source: networkOf(addressOf(socket) ?? ''),
    movedAt: 0,
    waiting: 0,
    last: Promise.resolve(true),
    isClosing: false,
    waitsForClient: () => line.waiting === 0 || (line.outgoing?.writableLength ?? 0) > 0,
    hasBegun: () => line.waiting > 0 && line.outgoing?.headersSent === true,
    // What is under way must not look whole.
    close: () => (line.waiting === 0 ? socket.destroy() : reset(socket)),
  }
  return line
}
