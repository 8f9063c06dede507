#!/usr/bin/env node
/** Starts the program of the npm package. Of the settings of `npm start`, only this flag can be set at run time. */
import { setFlagsFromString } from 'node:v8'

setFlagsFromString('--heap-growing-percent=200')
await import('../server.ts')
