/** A registry under examination: its address, the setting that has it, and how it is asked. */
import { type Answer, pingQuestion, type Question, type Registry } from '../registry/answer.ts'
import { anyManifest } from '../registry/headers.ts'
import { checkAgent } from '../registry/loop.ts'
import { discard } from '../registry/registry.ts'

export interface Subject {
  name: string
  registry: Registry
  address: URL
  /** The variable that has the address. */
  setting: string
  /** The image's name as it is called here: public registries but the default one have their host before it. */
  nameHere: (name: string) => string
  ask: (question: Pick<Question, 'target' | 'entity'> & Partial<Question>) => Promise<Answer>
}

export interface Known {
  registry: Registry
  address: URL
}

/** `record` hears of every answer. */
export function subjectOf(
  { registry, address }: Known,
  routerHost: string,
  record: (method: string, target: string, told: Answer) => void = () => {},
): Subject {
  const { name, role } = registry
  const headers = new Headers({ Accept: anyManifest, 'User-Agent': checkAgent(routerHost) })
  const settings: Record<string, string> = { hosted: 'HOSTED_HOSTNAME', proxy: 'PROXY_HOSTNAME' }
  return {
    name,
    registry,
    address,
    setting: settings[name] ?? 'PROXIES',
    nameHere: (image) => (role === 'hosted' || name === 'proxy' ? image : `${name}/${image}`),
    ask: async (question) => {
      const method = question.method ?? 'GET'
      const fields = registry.fieldsFor({ method, headers }, {})
      const signal = new AbortController().signal
      const answer = await registry.ask({
        method,
        headers: fields,
        signal,
        read: 'error',
        purpose: 'read',
        ...question,
      })
      discard(answer)
      record(method, question.target, answer)
      return answer
    },
  }
}

export const pinged = (subject: Subject) => subject.ask(pingQuestion)
