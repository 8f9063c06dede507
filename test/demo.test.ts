/** Runs `npm run demo -- --once` as a new user does. */
import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { start } from './parts/children.ts'
import { root } from './parts/router.ts'

test('the demo pulls and pushes once, and ends with exit code 0', async () => {
  const child = start(['npm', 'run', 'demo', '--', '--once'], { cwd: root })
  assert.equal(await child.ended, 0, child.lines.join('\n'))
  const output = child.lines.join('\n')
  assert.match(output, /pull +library\/\S+ .*proxy/)
  assert.match(output, /push +team\/demo.*hosted/)
  assert.match(output, /pull +team\/demo.*hosted/)
})

test('a port in use is reported, and the next free one is used', async () => {
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  const { port } = taken.address() as { port: number }
  const child = start(['npm', 'run', 'demo', '--', '--once'], { cwd: root, env: { PORT: `${port}` } })
  assert.equal(await child.ended, 0, child.lines.join('\n'))
  assert.match(child.lines.join('\n'), new RegExp(`port ${port} is taken`))
  taken.close()
})
