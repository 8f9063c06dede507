/** What those who pull and push read if no registry has an answer for them. They know no `hosted` and no `proxy`. */
import { type Answer, skipReason } from '../registry/answer.ts'

type Told = Pick<Answer, 'from' | 'status' | 'reason'>

export const messages = {
  failed: (answer: Told) => `${answer.from.title} ${howItFailed(answer)}`,
  limited: ({ from }: Told) => `${from.title} limits the rate of requests: try again later`,
  unavailable: (answers: readonly Told[]) => `not available now: ${answers.map(({ from }) => from.title).join(', ')}`,
  loginRequired: 'the private registry requires a login: log in, then try again',
  refused: 'the private registry refuses this request',
  noToken: 'the login service of the private registry did not answer: try again later',
}

function howItFailed({ status, reason }: Told): string {
  if (reason === skipReason) return 'failed lately: try again in a minute'
  if (status === 504) return 'did not answer in time: try again later'
  if (reason?.startsWith('no answer')) return 'did not answer: try again later'
  return `failed (${reason ?? status}): try again later, or tell whoever runs it`
}
