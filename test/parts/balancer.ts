/** A small TCP load balancer: round robin by connection. If a replica refuses, the next is tried. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface Balancer {
  url: string
  close: () => void
}

/**
 * Starts a balancer on a free port. `ports` gives the replicas' ports and is called for each connection.
 * `onBytes` is called for each chunk: the replica's port, the connection's bytes so far in both directions, and this
 * chunk's bytes if the client sent it (0 if the replica did).
 */
export async function balance(
  ports: () => number[],
  onBytes: (port: number, connectionBytes: number, clientBytes: number) => void = () => {},
): Promise<Balancer> {
  let connections = 0
  const open = new Set<Socket>()
  const server = createServer((client) => {
    open.add(client)
    client.on('error', () => {}).on('close', () => open.delete(client))
    const replicaPorts = ports()
    const first = connections++
    const dial = (tried: number) => {
      if (tried === replicaPorts.length) return client.destroy()
      const port = replicaPorts[(first + tried) % replicaPorts.length] as number
      const upstream = connect(port, '127.0.0.1')
      const dialNext = () => dial(tried + 1)
      upstream.once('error', dialNext)
      upstream.once('connect', () => {
        upstream.off('error', dialNext).on('error', () => client.destroy())
        client.on('close', () => upstream.destroy())
        // Destroyed, not ended: a clean end could make a half transfer look complete.
        upstream.on('close', () => client.destroy())
        let connectionBytes = 0
        for (const side of [client, upstream]) {
          side.on('data', (chunk) => {
            connectionBytes += chunk.length
            onBytes(port, connectionBytes, side === client ? chunk.length : 0)
          })
        }
        client.pipe(upstream, { end: false })
        upstream.pipe(client, { end: false })
      })
    }
    dial(0)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    close: () => {
      server.close()
      for (const socket of open) socket.destroy()
    },
  }
}
