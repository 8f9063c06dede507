#!/usr/bin/env node
/** The program as the npm package has it: with what `npm start` sets, as far as that can be set from within. */
import { setFlagsFromString } from 'node:v8'

setFlagsFromString('--heap-growing-percent=200')
await import('../server.ts')
