/** What every request is carried out with. */
import type { Background } from '../memory/background.ts'
import type { Flights } from '../memory/flights.ts'
import type { Memory } from '../memory/memory.ts'
import type { Answer } from '../registry/answer.ts'
import type { Budget } from '../runtime/budget.ts'
import type { Copier } from './copier.ts'
import type { Registries } from './exchange.ts'
import type { PlanRules } from './plan.ts'

export interface RelaySettings extends PlanRules {
  /** Which registries must be up for `/v2/` to be 200. */
  v2Requires: 'both' | 'hosted'
  /** Bytes of the largest layer that is copied for a push; 0 for none. */
  copyLimit: number
  /** Seconds without a byte, either way, that end a stream. */
  idleTimeout: number
}

/** The referrers of an image, for all who ask for them at the same time; `body` is missing if a registry failed. */
export interface Listed {
  answers: Answer[]
  body?: Uint8Array<ArrayBuffer>
}

export interface Surroundings {
  settings: RelaySettings
  registries: Registries
  memory: Memory
  background: Background
  copier: Copier
  /** For all that is held whole. */
  budget: Budget
  /** The lists of referrers that are being made. */
  lists: Flights<Listed>
}
