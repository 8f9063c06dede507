#!/usr/bin/env node
/** The program as npm installs it: Node takes no TypeScript from a package, so tsx does. */
import { setFlagsFromString } from 'node:v8'
import { register } from 'tsx/esm/api'

// As `npm start` does; what else it sets, V8 and the C library read before a program begins.
setFlagsFromString('--heap-growing-percent=200')
// Not the tsconfig.json of the folder it is started in.
register({ tsconfig: false })
await import('../server.ts')
