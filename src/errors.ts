/** OCI error bodies: writing our own, and reading those of the registries. */
import type { Refusal } from '../routing.ts'

/** What an upstream said in `errors[0]` of its body (OCI distribution-spec 1.1, "Error Codes"). */
export interface OciError {
  code: string
  message: string
  detail?: unknown
}

/** Longest error body that is read; anything beyond it is not looked at. */
const maxErrorBody = 64 * 1024
/** Seconds that the body of an error may take, whose deadline was for its head. */
export const errorPatience = 15

/** An answer of this router's own: status, OCI error body, and further fields. A HEAD gets the same without the body. */
export function ociError(method: string, status: number, error: OciError, fields?: Record<string, string>): Response {
  const headers = new Headers(fields)
  headers.set('Content-Type', 'application/json')
  const body = `${JSON.stringify({ errors: [error] })}\n`
  return new Response(method === 'HEAD' ? null : body, { status, headers })
}

/** The answer to a request that reaches nobody. */
export function refusalOf(method: string, { refused, code, message, allow }: Refusal): Response {
  return ociError(method, refused, { code, message }, allow ? { Allow: allow } : {})
}

/** Reads an error answer's body and frees its connection; undefined where it is not an OCI error. */
export async function readOciError(response: Pick<Response, 'body'>): Promise<OciError | undefined> {
  return firstError(json(await readBytes(response, maxErrorBody, errorPatience)))
}

/** A body; undefined where it has more than `most` bytes, takes more than `seconds`, or breaks. Its connection is free then. */
export async function readBytes({ body }: Pick<Response, 'body'>, most: number, seconds?: number) {
  if (!body) return new Uint8Array()
  const reader: ReadableStreamDefaultReader<Uint8Array> = body.getReader()
  const chunks: Uint8Array[] = []
  let size = 0
  const tooLate = () => {
    size = Number.POSITIVE_INFINITY
    reader.cancel().catch(() => {})
  }
  const timer = seconds === undefined ? undefined : setTimeout(tooLate, seconds * 1000)
  try {
    for (;;) {
      const { done, value } = await reader.read()
      size += value?.byteLength ?? 0
      if (size > most) break
      if (done) return new Uint8Array(Buffer.concat(chunks))
      chunks.push(value)
    }
  } catch {
    // Cut short: what came of it says nothing.
  } finally {
    clearTimeout(timer)
  }
  reader.cancel().catch(() => {})
  return undefined
}

/** What the bytes say; undefined where they are no JSON. */
export function json(bytes: Uint8Array | undefined): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes))
  } catch {
    return undefined
  }
}

/**
 * The code inside an error's detail: CNCF distribution as a cache wraps what its own upstream said,
 * `{errors:[{code:"UNKNOWN", detail:{errors:[{code:"MANIFEST_UNKNOWN"}]}}]}`, in an answer of 500.
 */
export function nestedCode(error: OciError | undefined): string | undefined {
  const detail = error?.detail as { code?: unknown; StatusCode?: unknown } | null | undefined
  // What its upstream said to a HEAD, or not in JSON, it tells as one error, or as the status alone.
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
