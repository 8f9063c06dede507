#!/usr/bin/env node
/** The program as npm installs it: Node takes no TypeScript from a package, so tsx does. */
import { register } from 'tsx/esm/api'

// Not the tsconfig.json of the folder it is started in.
register({ tsconfig: false })
await import('../server.ts')
