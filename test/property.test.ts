/** Ten thousand generated requests: what the matcher lets through is inside the grammar. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { match } from '../routing.ts'
import { allowed, method, path } from './parts/requests.ts'

test('10,000 generated requests: each is refused, or passes unchanged and inside the grammar', () => {
  let matched = 0
  const property = fc.property(method, path, (method, path) => {
    const found = match(method, path)
    if ('refused' in found) {
      assert.ok([400, 404, 405].includes(found.refused))
      assert.equal(Boolean(found.allow), found.refused === 405)
      return
    }
    matched++
    assert.equal(found.path, path)
    assert.match(path, allowed)
    assert.ok(!/\/\.\.?(\/|$)|\/\/|%2f|%5c|%00/i.test(path), path)
    assert.ok(found.route.methods.includes(method))
    assert.ok((found.name ?? '').length <= 255)
  })
  fc.assert(property, { numRuns: 10_000 })
  assert.ok(matched > 500, `only ${matched} matched: the requests are too wild to prove anything`)
})
