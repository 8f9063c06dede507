/** What was asked and sent since the start, as a table: a column for each registry. */
import { html } from 'hono/html'
import type { Registry } from '../../registry/answer.ts'
import { verdicts } from '../../registry/verdict.ts'
import { bytes, headingOf } from './words.ts'

/** `counts`: as `Metrics.countsOfRegistries` gives them. */
export function figures(registries: readonly Registry[], counts: ReadonlyMap<string, number>) {
  const count = (name: string, of: string) => counts.get(`${name} ${of}`) ?? 0
  const row = (title: string, cell: (name: string) => string | number) =>
    html`<tr><th scope="row">${title}</th>${registries.map(({ name }) => html`<td>${cell(name)}</td>`)}</tr>`
  const average = (name: string) => Math.round((count(name, 'sum') / (count(name, 'count') || 1)) * 1000)
  // It may be wider than a phone, so it scrolls by itself, by keyboard too.
  return html`<div class="wide" tabindex="0" role="region" aria-label="Figures of each registry"><table>
<tr><th scope="col">Requests by answer, /v2/ included</th>${registries.map((one) => html`<th scope="col">${headingOf(one)}</th>`)}</tr>
${Object.entries(verdicts).map(([verdict, title]) => row(`${verdict}: ${title}`, (name) => count(name, verdict)))}
${row('first byte on average', (name) => `${average(name)}\u00a0ms`)}
${row('pulled', (name) => bytes(count(name, 'pull')))}
${row('pushed', (name) => bytes(count(name, 'push')))}</table></div>`
}
