/** Makes a registry seem far away. */
import net from 'node:net'

/** Starts a relay in front of a registry. `delay.milliseconds` is added in each direction. */
export async function farAway(host: string): Promise<{ url: string; delay: { milliseconds: number } }> {
  const delay = { milliseconds: 0 }
  const [name, port] = host.split(':') as [string, string]
  const relay = (from: net.Socket, to: net.Socket) => {
    from.on('data', (chunk) => setTimeout(() => to.write(chunk), delay.milliseconds))
    from.on('close', () => setTimeout(() => to.destroy(), delay.milliseconds))
    from.on('error', () => {})
  }
  const server = net.createServer((client) => {
    const upstream = net.connect(Number(port), name)
    relay(client, upstream)
    relay(upstream, client)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  server.unref()
  return { url: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`, delay }
}
