/** Asks a router again and again from a process of its own: a test that is busy itself hears of each answer late. */
import { start } from './children.ts'

/** Each request has a connection of its own. `{n}` in the address counts. */
const program = `
import http from 'node:http'
import https from 'node:https'
const [, address, localAddress] = process.argv
const { get } = address.startsWith('https') ? https : http
const options = { agent: false, rejectUnauthorized: false, localAddress }
const ask = (n) => new Promise((resolve, reject) => {
  const request = get(address.replace('{n}', n), options, (response) => {
    response.resume().on('end', () => response.statusCode === 200 ? resolve() : reject(new Error(response.statusCode)))
  })
  request.on('error', reject)
})
let isDone = false
process.on('SIGTERM', () => { isDone = true })
let slowest = 0
for (let n = 0; !isDone; n++) {
  const begun = performance.now()
  await ask(n)
  slowest = Math.max(slowest, performance.now() - begun)
  if (n === 0) console.log('the first answer came')
}
console.log('slowest: ' + Math.round(slowest) + ' ms')
`

/**
 * Begins to ask, from an address of this machine, and settles when the first answer has come. Gives a function that ends the asking and gives the milliseconds of the slowest answer; it
 * throws if one of them was no 200.
 */
export async function probe(address: string, from = '127.0.0.1'): Promise<() => Promise<number>> {
  const child = start(['node', '--input-type=module', '-e', program, address, from])
  await child.line(/^the first answer came$/)
  return async () => {
    const ended = child.line(/^slowest: (\d+) ms$/)
    child.stop()
    return Number((await ended)[1])
  }
}
