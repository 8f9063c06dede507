/** A registry under examination: its address, the setting that has it, and how it is asked. */
import { type Answer, pingQuestion, type Question, type Registry } from '../registry/answer.ts'
import { checkAgent } from '../registry/loop.ts'
import { discard } from '../registry/registry.ts'
import { accept } from '../relay/explain.ts'

/** An answer, and what a log may say of it. */
export type Told = Answer & { cause?: string }

export interface Subject {
  name: string
  registry: Registry
  address: URL
  /** The variable that has the address. */
  setting: string
  /** The image's name as it is called here: public registries but the default one have their host before it. */
  nameHere: (name: string) => string
  ask: (question: Pick<Question, 'target' | 'entity'> & Partial<Question>) => Promise<Told>
}

/** A registry, and the last cause that it logged. */
export interface Known {
  registry: Registry
  address: URL
  lastCause: () => string | undefined
}

/** `record` hears of every answer. */
export function subjectOf(
  { registry, address, lastCause }: Known,
  routerHost: string,
  record: (method: string, target: string, told: Told) => void = () => {},
): Subject {
  const { name, role } = registry
  const headers = new Headers({ Accept: accept, 'User-Agent': checkAgent(routerHost) })
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
      const told = answer.reason ? { ...answer, cause: lastCause() } : answer
      record(method, question.target, told)
      return told
    },
  }
}

export const pinged = (subject: Subject) => subject.ask(pingQuestion)
