/** The command `check`: all that can be known without traffic. */

import { type Answer, isUp } from '../registry/answer.ts'
import type { Globs } from '../registry/globs.ts'
import { blockedBy } from '../relay/names.ts'
import type { PlanRules } from '../relay/plan.ts'
import type { Fetch } from '../runtime/runtime.ts'
import type { Effect } from './effect.ts'
import { bySeverity, type Finding, finding } from './findings.ts'
import { askAbsent, catalogOf, judgePath, judgeTags, knownImageOf } from './images.ts'
import { judgeNames } from './names.ts'
import { faultOfName, judgePush } from './push.ts'
import { judgePing } from './reach.ts'
import { judgeSettings, type ReadSettings } from './settings.ts'
import { type Known, pinged, type Subject, subjectOf } from './subject.ts'

export interface CheckSettings extends ReadSettings, PlanRules {
  aggregate: URL
  hostedNames: Globs
  proxyNames: Globs
  lookupOrder: 'proxy-first' | 'hosted-first'
  proxies: readonly { host: string; address: URL }[]
  /** Whether clients have their logins at hosted, if it wants any. */
  passLogin: boolean
}

export interface Checking<S> {
  settings: S
  effect: Effect
  /** The name to open an upload for, if any. */
  push: string | undefined
  fetch: Fetch
  /** The registries of these settings. */
  registriesOf: (settings: S) => Known[]
}

/** What a registry said to one question. */
export interface Asked {
  method: string
  target: string
  told: Answer
}

export interface Checked {
  registries: { subject: Subject; asked: readonly Asked[] }[]
  findings: Finding[]
}

interface Examined {
  subject: Subject
  findings: Finding[]
  isReached: boolean
  isCache?: boolean
}

export async function check<S extends CheckSettings>(checking: Checking<S>): Promise<Checked> {
  const { settings, effect, registriesOf } = checking
  const registries = registriesOf(settings).map((known) => {
    const asked: Asked[] = []
    const record = (method: string, target: string, told: Answer) => asked.push({ method, target, told })
    return { subject: subjectOf(known, settings.aggregate.host, record), asked }
  })
  const examined = await Promise.all(registries.map(({ subject }) => examine(subject, checking)))
  const together = await examineTogether(examined, checking)
  const found = [judgeSettings(settings, effect.misspelt), ...examined.map(({ findings }) => findings), together]
  return { registries, findings: bySeverity(found.flat()) }
}

/** What can be said if a setting is wrong: no registry is asked. */
export function checkFaults(faults: readonly string[], { misspelt }: Effect): Checked {
  const wrong = faults.map((fault) => finding('setting-wrong', { fault }))
  return { registries: [], findings: [...wrong, ...misspelt.map((one) => finding('misspelt-variable', { ...one }))] }
}

async function examine<S extends CheckSettings>(subject: Subject, checking: Checking<S>): Promise<Examined> {
  const { settings, fetch } = checking
  const told = await pinged(subject)
  const findings = await judgePing(subject, told, { fetch, passLogin: settings.passLogin })
  if (!isUp(told)) return { subject, findings, isReached: false }
  const { isCache, ofTag, findings: ofAbsent } = await askAbsent(subject)
  findings.push(...ofAbsent)
  if (subject.registry.role === 'public' && ofAbsent.length === 0) {
    const host = subject.name === 'proxy' ? settings.proxyNs[0] : subject.name
    const image = knownImageOf(host ?? '', (name) => blockedBy(settings, name) === undefined)
    const ofPath = await judgePath(subject, ofTag, image, (path) => elsewhere(subject, path, checking))
    const ofTags = ofPath ?? (await judgeTags(subject, image, settings.tags === 'lookup'))
    if (ofTags) findings.push(ofTags)
  }
  // Nobody pushes to a cache.
  return { subject, findings: findings.filter(({ code }) => !(isCache && code === 'open')), isReached: true, isCache }
}

/** The same registry, with another path before its names. */
function elsewhere<S extends CheckSettings>(subject: Subject, path: string, checking: Checking<S>): Subject {
  const { settings, registriesOf } = checking
  const moved = (address: URL) => Object.assign(new URL(address), { pathname: path })
  const proxies = settings.proxies.map((one) => ({ ...one, address: moved(one.address) }))
  const there = registriesOf({ ...settings, proxy: moved(settings.proxy), proxies })
  return subjectOf(there.find(({ registry }) => registry.name === subject.name) as Known, settings.aggregate.host)
}

/** What shows only by comparing the registries with each other and with the settings. */
async function examineTogether<S extends CheckSettings>(
  examined: Examined[],
  checking: Checking<S>,
): Promise<Finding[]> {
  const { settings, effect, push } = checking
  const globs = effect.settings.find(({ name }) => name === 'HOSTED_NAMES')?.value ?? ''
  const of = (name: string) => examined.find(({ subject }) => subject.name === name) as Examined
  const [hosted, proxy] = [of('hosted'), of('proxy')]
  const faultOfPush = push === undefined ? undefined : faultOfName(push, settings)
  const found = faultOfPush ? [finding('push-refused', { image: push, reason: faultOfPush })] : []
  if (!hosted.isReached) return found
  if (hosted.isCache) {
    const isSwapped = proxy.isReached && !proxy.isCache
    return [...found, finding(isSwapped ? 'swapped' : 'hosted-is-cache', { upstream: 'hosted' })]
  }
  if (globs || settings.proxies.length > 0) {
    const names = await catalogOf(hosted.subject)
    found.push(...(names ? judgeNames(globs, names, settings) : [finding('catalog-unread', { upstream: 'hosted' })]))
  }
  if (push === undefined || faultOfPush) return found
  return [...found, ...(await judgePush(push, hosted.subject, proxy.subject, settings.passLogin))]
}
