/** The circuit breaker: when it skips a registry, and when it lets a request through again. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBreaker } from '../src/registry/breaker.ts'

function breaker() {
  const clock = { now: 0 }
  const changes: boolean[] = []
  const { admit, bypass } = createBreaker(
    () => clock.now,
    (open) => changes.push(open),
  )
  const report = (...outcomes: (boolean | undefined)[]) => {
    for (const outcome of outcomes) admit()?.report(outcome)
  }
  return { clock, changes, admit, bypass, report }
}

test('three failures in a row open the breaker: a success resets the count, a client that leaves does not change it', () => {
  const { changes, admit, report } = breaker()
  report(false, false, true, false, undefined, false)
  assert.deepEqual([changes, admit()?.trial], [[], false])
  report(false)
  assert.deepEqual([changes, admit()], [[true], undefined])
})

test('an open breaker admits one trial after 1, 2, 4, … 30 s, and refuses all other requests', () => {
  const { clock, admit, report } = breaker()
  report(false, false, false)
  for (const pauseMs of [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]) {
    clock.now += pauseMs - 1
    assert.equal(admit(), undefined)
    clock.now += 1
    const trial = admit()
    assert.ok(trial?.trial, `after ${pauseMs} ms`)
    assert.equal(admit(), undefined)
    trial.report(false)
    assert.equal(admit(), undefined)
  }
})

test('a trial that succeeds closes the breaker, and the next pause is 1 s again', () => {
  const { clock, changes, admit, report } = breaker()
  report(false, false, false)
  clock.now += 1000
  report(false)
  clock.now += 2000
  report(true)
  assert.deepEqual([changes, admit()?.trial], [[true, false], false])
  report(false, false, false)
  clock.now += 1000
  assert.ok(admit())
})

test('a trial whose client leaves proves nothing: the next request is the trial', () => {
  const { clock, admit, report } = breaker()
  report(false, false, false)
  clock.now += 1000
  report(undefined)
  assert.ok(admit())
})

test('requests that were admitted before the breaker opened change nothing when they end', () => {
  const { clock, changes, admit, report } = breaker()
  const admittedBefore = [admit(), admit(), admit()]
  report(false, false, false)
  for (const admission of admittedBefore) admission?.report(false)
  clock.now += 1000
  const trial = admit()
  for (const admission of admittedBefore) admission?.report(true)
  assert.equal(admit(), undefined)
  trial?.report(true)
  for (const admission of admittedBefore) admission?.report(false)
  assert.deepEqual(changes, [true, false], 'nor once it is closed again')
})

test('what is asked anyway is no trial: it closes an open breaker, and opens a closed one like any other', () => {
  const { clock, changes, admit, bypass, report } = breaker()
  for (let i = 0; i < 3; i++) bypass()(false)
  assert.deepEqual(changes, [true])
  bypass()(false)
  bypass()(undefined)
  clock.now += 1000
  assert.ok(admit()?.trial, 'a failure while it is open changes nothing')
  bypass()(true)
  assert.deepEqual(changes, [true, false])
  report(true)
  assert.equal(admit()?.trial, false)
})

test('an answer that was asked for before the breaker opened does not close it', () => {
  const { changes, bypass, report } = breaker()
  const early = bypass()
  report(false, false, false)
  early(true)
  assert.deepEqual(changes, [true])
})
