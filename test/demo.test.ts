/** `npm run demo -- --once`, as a new user runs it. */
import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { start } from './parts/children.ts'
import { root } from './parts/router.ts'

test('the demo goes round once and leaves nothing behind', async () => {
  const child = start(['npm', 'run', 'demo', '--', '--once'], { cwd: root })
  assert.equal(await child.ended, 0, child.lines.join('\n'))
  const said = child.lines.join('\n')
  assert.match(said, /pull +library\/\S+ .*proxy/)
  assert.match(said, /push +team\/demo.*hosted/)
  assert.match(said, /pull +team\/demo.*hosted/)
})

test('a taken port is said, and the next free one is used', async () => {
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  const { port } = taken.address() as { port: number }
  const child = start(['npm', 'run', 'demo', '--', '--once'], { cwd: root, env: { PORT: `${port}` } })
  assert.equal(await child.ended, 0, child.lines.join('\n'))
  assert.match(child.lines.join('\n'), new RegExp(`port ${port} is taken`))
  taken.close()
})
