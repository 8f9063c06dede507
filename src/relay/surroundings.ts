/** What every request is carried out with. */
import type { Background } from '../memory/background.ts'
import type { Budget } from '../memory/budget.ts'
import type { Memory } from '../memory/memory.ts'
import type { Copier } from './copy.ts'
import type { Registries } from './exchange.ts'
import type { PlanRules } from './plan.ts'

export interface RelaySettings extends PlanRules {
  /** Which registries must be up for `/v2/` to be 200. */
  v2Requires: 'both' | 'hosted'
  /** Bytes of the largest layer that is copied for a push; 0 for none. */
  copyLimit: number
}

export interface Surroundings {
  settings: RelaySettings
  registries: Registries
  memory: Memory
  background: Background
  copier: Copier
  /** Room for the manifests that are being put. */
  held: Budget
}
