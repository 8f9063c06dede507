/** A round robin over replicas, a connection at a time, that tries the next where one refuses: a balancer in small. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface Balancer {
  url: string
  close: () => void
}

/**
 * `onBytes` is told which replica a connection leads to, how much it has carried so far, both ways, and how much of that
 * the client sent just now.
 */
export async function balance(
  ports: () => number[],
  onBytes: (port: number, carried: number, sent: number) => void = () => {},
): Promise<Balancer> {
  let turn = 0
  const open = new Set<Socket>()
  const server = createServer((client) => {
    open.add(client)
    client.on('error', () => {}).on('close', () => open.delete(client))
    const choices = ports()
    const start = turn++
    const dial = (tried: number) => {
      if (tried === choices.length) return client.destroy()
      const port = choices[(start + tried) % choices.length] as number
      const upstream = connect(port, '127.0.0.1')
      const next = () => dial(tried + 1)
      upstream.once('error', next)
      upstream.once('connect', () => {
        upstream.off('error', next).on('error', () => client.destroy())
        client.on('close', () => upstream.destroy())
        // Not `end`, which half a transfer would look whole by: a chunked or sized body has its own.
        upstream.on('close', () => client.destroy())
        let carried = 0
        for (const side of [client, upstream]) {
          side.on('data', (chunk) => {
            carried += chunk.length
            onBytes(port, carried, side === client ? chunk.length : 0)
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
