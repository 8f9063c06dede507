/** Where an image comes from: what a client gets, what is shadowed and how to change that, and each fact. */
import { html } from 'hono/html'
import { clean } from '../../log.ts'
import { type Explanation, factsOf } from '../../relay/explain.ts'
import { whyIn, withDigests } from './words.ts'

export type Explained = Explanation | { refused: number; message: string }

interface Around {
  /** What was typed. */
  image: string
  /** The globs of HOSTED_NAMES. */
  hostedNames: readonly string[]
  /** The name of a registry for people. */
  nameOf: (upstream: string) => string
  /** Why a registry gives no usable answer now. */
  causeOf: (upstream: string) => string | undefined
  mayKnow: boolean
}

/** The line to set if a public image shadows one of hosted; undefined if none does. */
export function remedyOf({ name, shadowed }: Pick<Explanation, 'name' | 'shadowed'>, hostedNames: readonly string[]) {
  return shadowed?.upstream === 'hosted' ? `HOSTED_NAMES=${[...hostedNames, name].join(',')}` : undefined
}

export function explained(explanation: Explained, around: Around) {
  const { image, nameOf, hostedNames } = around
  if ('refused' in explanation) return html`<p class="note bad">${image}: ${explanation.message}.</p>`
  const { answer, shadowed, registries } = explanation
  const { by, status, error, stale } = answer
  const remedy = remedyOf(explanation, hostedNames)
  const level = !by ? 'bad' : remedy || stale ? 'warn' : 'good'
  const isVague =
    !by && !image.includes('@') && registries.some((one) => one.upstream !== 'hosted' && one.status === 404)
  const what = by ? `it from ${nameOf(by)}${stale ? ', as it was last' : ''}` : `${status}: ${clean(error?.message)}`
  return html`<div class="note ${level}"><p><b>${image}: a client gets ${what}.</b>
${remedy && `This public image shadows an image of the same name in hosted.`}
${shadowed && !remedy && `It comes before the image of the same name at ${nameOf(shadowed.upstream)}: ${shadowed.because}.`}
${isVague && 'A cache says 404 for a tag also if its own upstream limits it or cannot be reached.'}</p>
${remedy && html`<p>If clients should get yours, set this and restart:</p><pre>${remedy}</pre>`}</div>
<table>${rowsOf(explanation, around).map(([of, what]) => html`<tr><th scope="row">${of}</th><td>${withDigests(what)}</td></tr>`)}</table>`
}

/** The facts of `explain`, with the names and the causes of the page. */
function rowsOf(explanation: Explanation, { nameOf, causeOf, mayKnow }: Around): [string, string][] {
  const { registries } = explanation
  return factsOf(explanation).map(([of = '', fact = '']) => {
    const said = registries.find((one) => one.upstream === of)
    if (!said) return [of, fact]
    const { upstream, verdict, status, digest, milliseconds } = said
    const why = whyIn({ ...said, cause: said.reason && causeOf(upstream) }, mayKnow)
    return [nameOf(upstream), [verdict, status, digest, `${milliseconds} ms`, why].filter(Boolean).join('  ')]
  })
}
