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
  /** The cause of a registry's reason for no usable answer. */
  causeOf: (upstream: string, reason?: string) => string | undefined
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

/** The facts of `explain` that the sentence above does not tell, with the names and the causes of the page. */
function rowsOf(explanation: Explanation, { nameOf, causeOf, mayKnow }: Around): [string, string][] {
  const { rule, order, registries } = explanation
  const facts = factsOf(explanation).filter(([of = '']) => !['rule', 'answer', 'shadowed'].includes(of))
  const rows = facts.map(([of = '', fact = '']): [string, string] => {
    const said = registries.find((one) => one.upstream === of)
    if (!said) return [nameOf(of), fact]
    const { upstream, verdict, status, digest, milliseconds } = said
    const why = whyIn({ ...said, cause: causeOf(upstream, said.reason) }, mayKnow)
    return [nameOf(upstream), [verdict, status, digest, `${milliseconds} ms`, why].filter(Boolean).join('  ')]
  })
  return [['rule', `${rule}: ${order.map(nameOf).join(', then ')}`], ...rows]
}
