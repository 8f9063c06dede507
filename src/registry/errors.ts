/** Writes the router's OCI errors, and reads the errors of registries (distribution-spec 1.1, "Error Codes"). */
import type { Refusal } from '../../routing.ts'
import { respond } from '../runtime/body.ts'
import { noRoom, type Room } from '../runtime/budget.ts'
import type { Reply } from '../runtime/runtime.ts'
import { json } from './json.ts'

/** The first error in the body of an answer. */
export interface OciError {
  code: string
  message: string
  detail?: unknown
}

/** An error is looked for in this many bytes of a body. */
const maxErrorBytes = 64 * 1024
/** How long the body of an error may take: the deadline of a question is for the head. */
export const errorSeconds = 15

/** An answer of the router's own. A HEAD gets the same without the body. */
export function ociError(method: string, status: number, error: OciError, fields?: Record<string, string>): Response {
  const headers = new Headers(fields)
  headers.set('Content-Type', 'application/json')
  const body = `${JSON.stringify({ errors: [error] })}\n`
  return respond(method === 'HEAD' ? null : body, { status, headers })
}

/** The answer to a request that the route table refuses. */
export function refusalOf(method: string, { refused, code, message, allow }: Refusal): Response {
  return ociError(method, refused, { code, message }, allow ? { Allow: allow } : {})
}

/** Reads the body of an error and frees its connection; undefined if it is no OCI error. */
export async function readOciError(response: Pick<Response, 'body'>): Promise<OciError | undefined> {
  return firstError(json(await readBytes(response, maxErrorBytes, { seconds: errorSeconds })))
}

/**
 * A whole body; undefined if it has more than `maxBytes`, takes more than `seconds`, or breaks. Frees its connection. Rejects with a
 * `Shortage` if there is no room.
 */
export async function readBytes(
  { body }: Pick<Response, 'body'>,
  maxBytes: number,
  { seconds, room }: { seconds?: number; room?: Room } = {},
) {
  if (!body) return new Uint8Array()
  const reader: ReadableStreamDefaultReader<Uint8Array> = body.getReader()
  const chunks: Uint8Array[] = []
  let size = 0
  let hasRoom = true
  const tooLate = () => {
    size = Number.POSITIVE_INFINITY
    reader.cancel().catch(() => {})
  }
  const timer = seconds === undefined ? undefined : setTimeout(tooLate, seconds * 1000)
  try {
    while (hasRoom) {
      const { done, value } = await reader.read()
      size += value?.byteLength ?? 0
      if (size > maxBytes) break
      if (done) return new Uint8Array(Buffer.concat(chunks))
      chunks.push(value)
      hasRoom = room?.take(value.byteLength) ?? true
    }
  } catch {
    // A body that breaks says nothing.
  } finally {
    clearTimeout(timer)
  }
  reader.cancel().catch(() => {})
  if (!hasRoom) throw noRoom()
  return undefined
}

/** What is no longer is counted only when it is there: it is read in one piece, which is faster. */
const smallBytes = 65_536

/**
 * A body of up to `maxBytes`, whole; or what has come of a longer one, or of one that there is no room for, and the whole body as a stream
 * again. Rejects if it breaks.
 */
export async function readAhead(
  response: Reply,
  maxBytes: number,
  room?: Room,
): Promise<
  { content: Uint8Array<ArrayBuffer> } | { begun: Uint8Array; rest: ReadableStream<Uint8Array>; isTooLong: boolean }
> {
  const length = response.headers.get('Content-Length')
  if (length !== null && Number(length) <= Math.min(maxBytes, smallBytes)) {
    const content = new Uint8Array(await response.arrayBuffer())
    room?.add(content.byteLength)
    return { content }
  }
  if (!response.body) return { content: new Uint8Array() }
  const reader: ReadableStreamDefaultReader<Uint8Array> = response.body.getReader()
  const chunks: Uint8Array[] = []
  let size = 0
  let hasRoom = true
  while (size <= maxBytes && hasRoom) {
    const { done, value } = await reader.read()
    if (done) return { content: new Uint8Array(Buffer.concat(chunks)) }
    chunks.push(value)
    size += value.byteLength
    hasRoom = room?.take(value.byteLength) ?? true
  }
  const begun = new Uint8Array(Buffer.concat(chunks))
  return { begun, rest: continued(begun, reader), isTooLong: size > maxBytes }
}

/** A stream that begins with what was read already. */
function continued(begun: Uint8Array, reader: ReadableStreamDefaultReader<Uint8Array>): ReadableStream<Uint8Array> {
  return new ReadableStream(
    {
      start: (controller) => controller.enqueue(begun),
      pull: async (controller) => {
        const { done, value } = await reader.read()
        if (done) controller.close()
        else controller.enqueue(value)
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  )
}

/**
 * The code inside an error's detail. CNCF distribution as a cache answers 500 and wraps what its own upstream said:
 * `{errors:[{code:"UNKNOWN", detail:{errors:[{code:"MANIFEST_UNKNOWN"}]}}]}`.
 */
export function nestedCode(error: OciError | undefined): string | undefined {
  const detail = error?.detail as { code?: unknown; StatusCode?: unknown } | null | undefined
  // If its upstream answered a HEAD, or not in JSON, the detail is one error, or only the status.
  return firstError(detail)?.code ?? firstError({ errors: [detail] })?.code ?? codes[`${detail?.StatusCode}`]
}

const codes: Record<string, string> = {
  401: 'UNAUTHORIZED',
  403: 'DENIED',
  404: 'BLOB_UNKNOWN',
  429: 'TOOMANYREQUESTS',
}

function firstError(body: unknown): OciError | undefined {
  const errors = (body as { errors?: unknown } | null | undefined)?.errors
  const first = (Array.isArray(errors) ? errors[0] : undefined) as Partial<OciError> | null | undefined
  if (typeof first?.code !== 'string') return undefined
  return { code: first.code, message: typeof first.message === 'string' ? first.message : '', detail: first.detail }
}

/** What to log of a rejected fetch: Node hides the reason in `cause`. */
export function causeOf(error: unknown): string {
  const { cause, message } = error as { cause?: { code?: string; message?: string }; message?: string }
  return cause?.code || cause?.message || message || String(error)
}
