/** A port that is published as Docker does it on 127.0.0.1: a process of its own copies the bytes, and keeps what its client is slow to take. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface PortProxy {
  /** `127.0.0.1:PORT`. */
  host: string
  /** The container has ended: Docker ends its port too, with all that is still kept there. */
  end: () => void
}

/** Publishes a port of 127.0.0.1 on a free one. It reads as fast as it can, and gives a client `bytesPerMs`. */
export async function publish(port: number, bytesPerMs: number): Promise<PortProxy> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const container = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    for (const socket of [client, container]) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    }
    client.pipe(container)
    const kept: Buffer[] = []
    let isEnded = false
    container.on('data', (chunk) => kept.push(chunk))
    container.on('end', () => {
      isEnded = true
    })
    let since = performance.now()
    const timer = setInterval(() => {
      const now = performance.now()
      for (let room = Math.ceil(bytesPerMs * (now - since)); room > 0 && kept.length > 0; ) {
        const chunk = kept.shift() as Buffer
        if (chunk.length > room) kept.unshift(chunk.subarray(room))
        const part = chunk.subarray(0, room)
        room -= part.length
        client.write(part)
      }
      since = now
      if (isEnded && kept.length === 0 && !client.writableEnded) client.end()
    }, 10)
    client.on('close', () => {
      clearInterval(timer)
      container.destroy()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    end: () => {
      server.close()
      for (const socket of sockets) socket.resetAndDestroy()
    },
  }
}
