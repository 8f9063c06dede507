/** How to ask a registry, on Node, Bun and Deno: undici's client, told to hold a fast registry back for a slow client. */
import { lookup } from 'node:dns/promises'
import { isIP, type Socket } from 'node:net'
import process from 'node:process'
import { Readable } from 'node:stream'
import { createSecureContext } from 'node:tls'
import type { Dispatcher } from 'undici'
import { allowedOf } from './addresses.ts'
import { connectToAny } from './attempts.ts'
import { Arrival, ArrivingReply, clientGone, type Valve } from './body.ts'
import { type Connect, parserOf, withinRoom } from './outgoing.ts'
import { pauseBeneath } from './pause.ts'
import { type Asked, type Fetch, ForbiddenAddress, type Reply } from './runtime.ts'
import { shortageOr } from './shortage.ts'

/** The valve of the connection whose bytes undici is parsing now. */
let current: Valve

/**
 * Undici's own pause stops its parser. If the connection ends meanwhile, an assertion ends the process, and a body that came
 * whole counts as broken (nodejs/undici#5360; mended in undici 8, which needs Node 22). So this pauses the reading of the
 * socket instead: the parser sees no end before it has seen all bytes.
 */
function fitValve(socket: Socket): void {
  const read = socket.read.bind(socket)
  let isShut = false
  let isParsing = false
  const valve: Valve = {
    shut: () => {
      isShut = true
      // Bun would read up to half a MiB ahead for a slow client. The next `read` resumes the handle by itself.
      ;(socket as { _handle?: { pause?: () => void } })._handle?.pause?.()
    },
    open: () => {
      if (!isShut) return
      isShut = false
      // While undici parses, it reads on by itself.
      if (!isParsing) socket.emit('readable')
    },
  }
  let isTold = false
  socket.read = (size) => {
    if (!isTold) isTold = ignoreContinue(socket)
    isParsing = false
    if (isShut) return null
    current = valve
    const chunk = read(size)
    isParsing = chunk !== null
    return chunk
  }
  // A body without a length ends with its connection. Undici takes ECONNRESET for such an end, so it gets another code.
  socket.prependListener('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ECONNRESET') error.code = 'RESET'
  })
}

/**
 * A registry may send `100 Continue` to whoever asks (RFC 9110, section 15.2). Undici takes that for an error, and ignores any other
 * interim answer. So its parser reads 102 instead. It is the parser that knows which bytes are a status. Gives whether there is
 * a parser already.
 */
function ignoreContinue(socket: Socket): boolean {
  const parser = parserOf(socket)
  if (!parser) return false
  const { onHeadersComplete } = parser
  parser.onHeadersComplete = (status, ...more) => onHeadersComplete.call(parser, status === 100 ? 102 : status, ...more)
  return true
}

/**
 * Undici's client without its `fetch`, for these reasons:
 * - Node's fetch keeps a whole upload for a redirect (nodejs/undici#4058), gives up after 300 s without a byte or after 16 KB of
 *   header fields, decodes bodies, and costs twice as much.
 * - Bun's fetch runs 256 requests at a time, and holds up to 2.5 MiB of a body for a slow client.
 *
 * `ca`: the authorities to trust, in PEM; undefined for the usual ones. `connectMs`: how long a connection may take to open.
 * `resolve`: gives the addresses of a host. Rejects if HTTP_PROXY or HTTPS_PROXY is no address.
 */
export async function createFetch(
  ca: string[] | undefined,
  connectMs: number,
  resolve: Resolve = addressesOf,
): Promise<Fetch> {
  // By its file: under the bare name Bun gives a stand-in made of its own fetch.
  const { Agent, EnvHttpProxyAgent, Pool, buildConnector } = await import('undici/index.js')
  /** For all connections of one identity: for each one Node would read 150 authorities again, 30 ms of a core. */
  const tlsFor = (identity?: Asked['identity']) => ({
    // The signal of a request does not reach a connection whose handshake never ends.
    timeout: connectMs,
    // NODE_TLS_REJECT_UNAUTHORIZED must not turn the check off.
    rejectUnauthorized: true,
    secureContext: ca || identity ? createSecureContext({ ca, ...identity }) : undefined,
  })
  const connectorFor = (identity?: Asked['identity']) => withValve(buildConnector(tlsFor(identity)))
  const connect = connectorFor()
  const options = { headersTimeout: 0, bodyTimeout: 0, maxHeaderSize: 128 * 1024 }
  const forwarders = forwardersIn(process.env)
  /** Connects by itself, or through the forward proxy that the environment names for public registries. */
  const agentFor = ({ isPublic, identity }: Asked, connect: Connect, more: { pipelining?: number } = {}) => {
    if (!isPublic || !forwarders) return new Agent({ ...options, ...more, connect })
    const factory = (origin: string | URL, { connect, ...given }: { connect?: unknown }) =>
      new Pool(origin, { ...given, connect: withValve(connect as Connect) })
    /** For the connections to the forward proxy itself. */
    const clientFactory = (origin: string | URL, { connect }: { connect?: unknown }) =>
      new Pool(origin, { connect: unnamed(connect as Connect) })
    const tls = { requestTls: tlsFor(identity), proxyTls: tlsFor() }
    return new EnvHttpProxyAgent({
      ...options,
      ...more,
      ...forwarders,
      ...tls,
      connect,
      factory,
      clientFactory,
    } as object)
  }
  const agentsFor = (asked: Asked, connect: Connect) => {
    return { kept: agentFor(asked, connect), unkept: agentFor(asked, connect, { pipelining: 0 }) }
  }
  const own = agentsFor({ isPublic: false } as Asked, connect)
  const ofPublic = forwarders ? agentsFor({ isPublic: true } as Asked, connect) : own
  const identified = new WeakMap<object, typeof own>()
  const agentsOf = (asked: Asked) => {
    const { identity, isPublic } = asked
    if (!identity) return isPublic ? ofPublic : own
    const agents = identified.get(identity) ?? agentsFor(asked, connectorFor(identity))
    identified.set(identity, agents)
    return agents
  }
  // The address that was checked is the one connected to: no second look at the name in between.
  const connectChecked =
    (senders: readonly string[]): Connect =>
    (target, callback) => {
      checked(target.hostname, senders, resolve).then(
        (addresses) => connectToAny(connect, target, addresses, callback),
        (error) => callback(shortageOr(error), null),
      )
    }
  return async (url, asked, fresh) => {
    if (asked.sentBy === undefined) {
      const { kept, unkept } = agentsOf(asked)
      return dispatch(fresh ? unkept : kept, url, asked)
    }
    const isForwarded = asked.isPublic && forwarders
    // Behind a forward proxy this machine may not know the names of others.
    const senders = await resolve(hostOf(asked.sentBy)).catch((error) => (isForwarded ? [] : Promise.reject(error)))
    // The forward proxy looks up the names, so here only an address itself can be checked.
    if (isForwarded && isIP(hostOf(url))) await checked(hostOf(url), senders, async (host) => [host])
    // Its connections are not shared: they were checked for this sender only.
    return dispatch(agentFor(asked, connectChecked(senders), { pipelining: 0 }), url, asked)
  }
}

/** The same connector. An address is no name for a handshake (RFC 6066, section 3), though undici sends that of a forward proxy as one. */
const unnamed =
  (connector: Connect): Connect =>
  (target, callback) =>
    connector(isIP(target.servername ?? '') ? { ...target, servername: undefined } : target, callback)

/** The same connector, whose sockets can be held back. */
const withValve = (connector: Connect) =>
  withinRoom(connector, (socket) => {
    pauseBeneath(socket)
    fitValve(socket)
  })

/**
 * The forward proxies of the usual variables, as undici takes them; undefined if none is named. Many write them without `http://`. Throws
 * an Error if one is no address.
 */
export function forwardersIn(environment: Readonly<Record<string, string | undefined>>) {
  const named = ['http', 'https'].map((scheme) => {
    const name = `${scheme}_proxy`
    const text = environment[name] ?? environment[name.toUpperCase()]
    if (!text) return undefined
    const address = text.includes('://') ? text : `http://${text}`
    if (!URL.canParse(address) || !/^https?:$/.test(new URL(address).protocol))
      throw new Error(`${name.toUpperCase()} must be the address of a forward proxy`)
    return address
  })
  const [httpProxy, httpsProxy] = named
  return httpProxy || httpsProxy ? { httpProxy, httpsProxy } : undefined
}

/** Gives all addresses of a host. */
export type Resolve = (host: string) => Promise<string[]>

const addressesOf: Resolve = async (host) => {
  return (await lookup(host, { all: true })).map(({ address }) => address)
}

/** The host of an address, without the brackets of IPv6. */
const hostOf = (url: string) => new URL(url).hostname.replace(/^\[|\]$/g, '')

/** The addresses of `host` that a registry at the addresses `senders` may redirect to. Rejects with `ForbiddenAddress` if no address is allowed. */
async function checked(host: string, senders: readonly string[], resolve: Resolve): Promise<string[]> {
  const addresses = allowedOf(await resolve(host), senders)
  if (addresses.length === 0) throw new ForbiddenAddress(`${host} is at an address that this registry may not lead to`)
  return addresses
}

/** One request; settles when the head of its answer has come. */
function dispatch(dispatcher: Dispatcher, url: string, { method, headers, body, signal }: Asked): Promise<Reply> {
  const { origin } = new URL(url)
  const upload = body instanceof Readable ? body : undefined
  const options = {
    origin,
    // Everything after the origin goes out as it came: a URL object would escape some of it.
    path: url.slice(origin.length),
    method: method as 'GET',
    headers,
    // The client's connection must survive this request: it still carries the answer.
    body: (upload?.iterator({ destroyOnReturn: false }) ?? body ?? null) as Readable | null,
  }
  const arrival = new Arrival()
  return new Promise((resolve, reject) => {
    const abort = () => {
      arrival.abort(signal.reason)
      reject(signal.reason)
    }
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    // The client's signal outlives this: it would keep what was sent, a manifest say.
    const forget = () => signal.removeEventListener('abort', abort)
    dispatcher.dispatch(options, {
      onRequestStart: (controller) => {
        arrival.begin(controller)
        if (signal.aborted) abort()
      },
      onResponseStart: (_, status, record) => {
        if (status >= 200) resolve(new ArrivingReply(method, status, record, arrival))
      },
      onResponseData: (_, chunk) => arrival.data(chunk, current),
      onResponseEnd: () => {
        forget()
        arrival.end()
      },
      onResponseError: (_, error) => {
        forget()
        arrival.error(error)
        const hasLeft = upload?.destroyed && !upload.readableEnded
        reject(hasLeft ? clientGone() : error)
      },
    })
  })
}
