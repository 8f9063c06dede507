/** The connections to registries: no more than leave descriptors for clients, and whose fault it is if none opens. */
import type { Socket } from 'node:net'
import type { buildConnector } from 'undici'
import { maxFiles, Shortage, sharesOf, shortageOr } from './shortage.ts'

export type Connect = buildConnector.connector

/** What undici makes of the bytes of one connection. */
interface Parser {
  onHeadersComplete: (status: number, ...more: unknown[]) => number
  /** The one that asks on this connection, and how much it has to ask. */
  client?: { stats?: { size: number } } | null
}

/** Undefined before undici has begun to use the connection, and after it has ended. */
export function parserOf(socket: Socket): Parser | undefined {
  const key = Object.getOwnPropertySymbols(socket).find(({ description }) => description === 'parser')
  return (key && (socket as unknown as Record<symbol, Parser | null>)[key]) ?? undefined
}

const open = new Set<Socket>()
let opening = 0

/** Between two tries to connect, and the tries: what was just closed may take its descriptor a moment longer. */
const tryMs = 50
const maxTries = 20

/** The same connector. `onOpen` is called once for each connection. Errors tell what this machine ran out of. */
export function withinRoom(connector: Connect, onOpen: (socket: Socket) => void): Connect {
  const connectOnce: Connect = (options, callback) => {
    if (!hasRoom()) {
      const message = `${open.size + opening} to registries`
      return callback(new Shortage('files', message), null)
    }
    opening++
    connector(options, (...[error, socket]) => {
      opening--
      if (error) return callback(shortageOr(error), null)
      if (!open.has(socket)) {
        open.add(socket.once('close', () => open.delete(socket)))
        onOpen(socket)
      }
      callback(null, socket)
    })
  }
  return (options, callback) => {
    let tries = 0
    const connect = () =>
      connectOnce(options, (...result) => {
        const isShort = result[0] instanceof Shortage && result[0].resource === 'files'
        if (isShort && ++tries < maxTries) setTimeout(connect, tryMs)
        else callback(...result)
      })
    connect()
  }
}

/** Whether one more may open. Those that are kept open for later must go before one that is needed. */
function hasRoom(): boolean {
  const { registries } = sharesOf(maxFiles())
  if (open.size + opening < registries) return true
  for (const socket of open) {
    if (parserOf(socket)?.client?.stats?.size !== 0) continue
    open.delete(socket)
    socket.destroy()
  }
  return open.size + opening < registries
}
