/** Pages of a tag list (distribution-spec 1.1, "Listing Tags"): all pages must be of the registry that gave the first. */
import type { Answer } from '../registry/answer.ts'
import { discard } from '../registry/registry.ts'
import { isLaterPage } from '../registry/verdict.ts'
import { askAs, type Exchange } from './exchange.ts'
import { namespaceIn } from './names.ts'

/**
 * A later page that a registry does not give, though it has the list, is `failed`: another registry's list would be a wrong page. One
 * without tags is the last page of its list. Any other answer stays as it is.
 */
export async function ownPage(exchange: Exchange, answer: Answer): Promise<Answer> {
  const { matched, query } = exchange
  const isMissing = answer.verdict === 'absent' || answer.verdict === 'denied'
  if (matched.route.entity !== 'tags' || !isLaterPage(query) || !(isMissing || answer.isEmpty)) return answer
  const list = await askAs(exchange)(answer.from, {
    target: `${matched.path}?n=1${namespaceIn(query).replace('?', '&')}`,
    read: 'error',
    purpose: 'lookup',
  })
  list.later?.abandon()
  discard(list)
  if (list.verdict === 'found' && !list.isEmpty) {
    if (answer.isEmpty) return { ...answer, isEmpty: false }
    return { ...answer, verdict: 'failed', status: 502, reason: 'has this list of tags, but does not give this page' }
  }
  // What `later` would bring is the first page.
  return ['failed', 'limited', 'gone'].includes(list.verdict) ? { ...list, later: undefined } : answer
}
