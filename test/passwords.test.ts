/** The rules of logins here: whose turn it is, who is refused when, what is remembered and logged, whose address counts. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { hashSync } from 'bcryptjs'
import { clientAddress } from '../src/access/client.ts'
import { Failures } from '../src/access/failures.ts'
import { Pace } from '../src/access/pace.ts'
import { type Check, Passwords } from '../src/access/passwords.ts'
import { Turns } from '../src/access/turns.ts'
import { hashesFor, highestCost } from '../src/access/users.ts'
import type { Log, LogFields } from '../src/log.ts'
import { Networks, networkOf } from '../src/runtime/networks.ts'
import { networks } from '../src/settings/parsers.ts'

/** `A/x1`: from source A, for user x, drew the lot 1. */
const waiting = (text: string) => {
  const [, source = '', name = '', lot] = /^(\w+)\/([a-z]+)(\d+)$/.exec(text) ?? []
  return { source, name, lot: Number(lot), text }
}
type Item = ReturnType<typeof waiting>
const turnsOf = (texts: string, bounds = { ofName: 3, ofSource: 5, inAll: 7 }) => {
  const turns = new Turns<Item>(bounds)
  const surplus = texts.split(' ').map((text) => turns.add(waiting(text))?.text)
  return { turns, surplus: surplus.filter(Boolean).join(' ') }
}
const drain = (turns: Turns<Item>) => {
  const texts: string[] = []
  for (let item = turns.next(); item; item = turns.next()) texts.push(item.text)
  return texts.join(' ')
}

/** what waits, in the order it came; the order of turns; who had to go */
const orders: [came: string, turns: string, surplus: string][] = [
  ['A/x1', 'A/x1', ''],
  ['A/x1 A/x2 A/x3', 'A/x3 A/x2 A/x1', ''],
  ['A/x1 A/x2 A/x3 B/z1', 'A/x3 B/z1 A/x2 A/x1', ''],
  ['A/x1 A/x2 A/x3 A/y1', 'A/x3 A/y1 A/x2 A/x1', ''],
  ['A/x1 A/x2 A/y1 B/x1 B/x2', 'A/x2 B/x2 A/y1 B/x1 A/x1', ''],
  ['A/x5 A/x4 A/x3 A/x9', 'A/x9 A/x4 A/x3', 'A/x5'],
  ['A/x1 A/x4 A/x3 A/x2', 'A/x4 A/x3 A/x2', 'A/x1'],
  ['A/a1 A/b1 A/c1 A/d1 A/e1 A/f1', 'A/b1 A/c1 A/d1 A/e1 A/f1', 'A/a1'],
  ['A/a1 A/a2 A/c1 A/d1 A/e1 A/f1', 'A/a2 A/c1 A/d1 A/e1 A/f1', 'A/a1'],
  ['A/a1 A/b1 B/a1 B/b1 B/c1 C/a1 D/a1 E/a1', 'A/b1 B/a1 C/a1 D/a1 E/a1 B/b1 B/c1', 'A/a1'],
]
for (const [came, order, gone] of orders) {
  test(`turns: ${came}`, () => {
    const { turns, surplus } = turnsOf(came)
    assert.deepEqual([drain(turns), surplus, turns.size], [order, gone, 0])
  })
}

test('turns: who had one is last, also when others come in between', () => {
  const { turns } = turnsOf('A/x1 A/x2 B/z1')
  assert.equal(turns.next()?.text, 'A/x2')
  for (const text of ['A/y1', 'C/w1']) turns.add(waiting(text))
  assert.equal(drain(turns), 'B/z1 A/x1 C/w1 A/y1')
})

test('turns: one can leave, whether it waits or not', () => {
  const { turns } = turnsOf('A/x1 A/y1 B/z1')
  const left = waiting('A/w1')
  turns.add(left)
  turns.delete(left)
  turns.delete(left)
  turns.delete(waiting('A/x1'))
  assert.equal(turns.size, 3)
  assert.equal(drain(turns), 'A/x1 B/z1 A/y1')
})

test('turns: whatever comes leaves once, and no more wait than may', () => {
  const bounds = { ofName: 3, ofSource: 5, inAll: 7 }
  const turns = new Turns<Item>(bounds)
  const inside = new Set<Item>()
  let seed = 1
  const random = (below: number) => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed % below
  }
  for (let i = 0; i < 5000; i++) {
    const item = waiting(`${'ABC'[random(3)]}/${'xyz'[random(3)]}${random(100)}`)
    if (random(3) > 0) {
      inside.add(item)
      const surplus = turns.add(item)
      if (surplus) assert.ok(inside.delete(surplus))
    } else {
      const next = turns.next()
      assert.equal(next !== undefined, inside.size > 0)
      if (next) assert.ok(inside.delete(next))
    }
    assert.equal(turns.size, inside.size)
    assert.ok(inside.size <= bounds.inAll)
    for (const source of 'ABC') {
      const ofSource = [...inside].filter((one) => one.source === source)
      assert.ok(ofSource.length <= bounds.ofSource)
      for (const name of 'xyz') assert.ok(ofSource.filter((one) => one.name === name).length <= bounds.ofName)
    }
  }
})

test('every user costs the same time, known or not: the costs of the hashes add up to the highest', () => {
  const hashOf = (cost: string) => `$2y$${cost}$${'a'.repeat(53)}`
  const users = new Map([
    ['low', hashOf('05')],
    ['high', hashOf('08')],
  ])
  const hashes = (user: string) => hashesFor(users.get(user), highestCost(users))
  const work = (user: string) => hashes(user).reduce((sum, hash) => sum + 2 ** Number(hash.slice(4, 6)), 0)
  assert.deepEqual([work('low'), work('high'), work('nobody')], [256, 256, 256])
  assert.equal(hashes('low')[0], users.get('low'))
})

/** Gives the functions that a test needs of a user file in a folder of its own, with a clock that the test sets. */
function fileOf(users: Record<string, string>) {
  const folder = mkdtempSync(join(tmpdir(), 'combined-registry-test-'))
  // The threads that check passwords do not keep the process alive, so this timer does.
  const alive = setInterval(() => {}, 1000)
  after(() => {
    clearInterval(alive)
    rmSync(folder, { recursive: true })
  })
  const file = join(folder, 'users')
  const write = (users: Record<string, string>) => {
    const lines = Object.entries(users).map(([user, password]) => `${user}:${hashSync(password, 4)}\n`)
    writeFileSync(file, lines.join(''))
  }
  write(users)
  let notice = () => {}
  /** Resolves when the changed file was read, whether it was accepted or not. */
  const noticed = new Promise<void>((resolve) => {
    notice = resolve
  })
  const logged: LogFields[] = []
  const log: Log = (_, message, fields) => {
    if (message === 'wrong login') logged.push(fields as LogFields)
    if (/ anew/.test(message)) notice()
  }
  const clock = { now: 1 }
  return { file, write, noticed, log, logged, clock, now: () => clock.now }
}

/** A password checker for a file with one user. */
function passwordsOf(password: string) {
  const { file, write, noticed, log, clock, now } = fileOf({ ann: password })
  const passwords = new Passwords(file, now, log)
  const check = (password: string, source = 'client') => passwords.check('ann', password, source)
  return { check, clock, file, noticed, write: (password: string) => write({ ann: password }) }
}

/** A comparison that runs until the test ends it. */
interface Running {
  password: string
  end: (isRight: boolean) => void
}

const never = () => new Promise<void>(() => {})
const after40ms = () => new Promise<void>((resolve) => setTimeout(resolve, 40))

/** A password checker whose threads and their times are the test's. */
function withThreads(users: Record<string, string>, { isMeasured = true, imitate = never } = {}) {
  const running: Running[] = []
  const all: string[] = []
  const compare = (password: string, hashes: string[]) =>
    new Promise<boolean>((resolve) => {
      all.push(hashes.length > 0 ? password : '')
      const one: Running = {
        password,
        end: (isRight) => {
          running.splice(running.indexOf(one), 1)
          resolve(isRight)
        },
      }
      running.push(one)
    })
  const file = fileOf(users)
  const passwords = new Passwords(file.file, file.now, file.log, { isMeasured, imitate, compare })
  return { ...file, running, all, check: passwords.check.bind(passwords) }
}

/** What has come of each check by now. */
function outcomesOf(checks: Promise<Check>[]): (Check | undefined)[] {
  const outcomes: (Check | undefined)[] = checks.map(() => undefined)
  for (const [i, check] of checks.entries()) {
    check.then(
      (outcome) => (outcomes[i] = outcome),
      () => {},
    )
  }
  return outcomes
}
/** Lets everything go on that waits for no timer. */
const settle = () => new Promise((resolve) => setImmediate(resolve))
/** Lets those hear of it that find no room. */
const turnAway = () => new Promise((resolve) => setTimeout(resolve, 300))
const numbered = (count: number, name: string) => Array.from({ length: count }, (_, i) => `${name}${i}`)

test('a correct login is remembered for an hour, a wrong one for a minute', async () => {
  const { check, clock } = passwordsOf('canary')
  /** A remembered result comes at once, a check comes later. */
  const remembered = (password: string) => {
    const later = new Promise((resolve) => setImmediate(resolve, 'later'))
    return Promise.race([check(password), later])
  }
  assert.deepEqual([await check('canary'), await check('other')], ['right', 'wrong'])
  for (const [timeMs, password, wanted] of [
    [50_000, 'canary', 'right'],
    [55_000, 'other', 'wrong'],
    [70_000, 'other', 'later'],
    [3_590_000, 'canary', 'right'],
    [3_610_000, 'canary', 'later'],
  ] as const) {
    clock.now = timeMs
    assert.equal(await remembered(password), wanted, `${password} at ${timeMs}`)
  }
})

test('a password that is removed from the file lets nobody in who comes later, even while an earlier check is running', async () => {
  const { check, write, noticed, running } = withThreads({ ann: 'canary' })
  const before = check('ann', 'canary', 'client')
  write({ ann: 'canary-new' })
  await noticed
  const later = outcomesOf([check('ann', 'canary', 'client')])
  running[0]?.end(true)
  assert.equal(await before, 'right')
  await settle()
  assert.deepEqual(later, [undefined], 'it is checked once more')
})

test('a user file that is missing or links to itself leaves the users unchanged', async () => {
  const { check, noticed, file } = passwordsOf('canary')
  rmSync(file)
  symlinkSync(file, file)
  await noticed
  assert.equal(await check('canary'), 'right')
})

test('two passwords are compared at a time; names that are nobody’s need no comparison', async () => {
  const { check, running, all } = withThreads({ ann: 'canary', bob: 'canary' })
  for (const name of numbered(90, 'nobody')) check(name, 'x', 'client')
  const outcomes = outcomesOf(['a', 'b', 'c'].map((password) => check('ann', password, 'client')))
  await settle()
  assert.equal(running.length, 2)
  running[0]?.end(true)
  running[0]?.end(true)
  await settle()
  assert.equal(running.length, 1)
  running[0]?.end(true)
  await settle()
  assert.deepEqual(outcomes, ['right', 'right', 'right'])
  assert.deepEqual(all.sort(), ['a', 'b', 'c'])
})

test('before the first comparison, one of a hash of nobody’s tells how long they take', async () => {
  const { check, running } = withThreads({ ann: 'canary' }, { isMeasured: false })
  check('nobody', 'x', 'client')
  await settle()
  assert.equal(running.length, 1)
})

test('a user whose password is guessed without end keeps another user waiting for one turn', async () => {
  const { check, running } = withThreads({ ann: 'canary', bob: 'canary' })
  for (const guess of numbered(100, 'guess')) check('ann', guess, 'balancer')
  const outcomes = outcomesOf([check('bob', 'canary', 'balancer')])
  // One turn of Ann's, then it is Bob's.
  for (let i = 0; i < 2; i++) {
    running[0]?.end(false)
    await settle()
  }
  assert.ok(running.some(({ password }) => password === 'canary'))
  running.find(({ password }) => password === 'canary')?.end(true)
  await settle()
  assert.deepEqual(outcomes, ['right'])
})

test('an address that guesses keeps another address waiting for one turn, also for the same user', async () => {
  const users = Object.fromEntries(numbered(20, 'user').map((user) => [user, 'canary']))
  const { check, running } = withThreads(users)
  for (const user of Object.keys(users)) check(user, 'guess', 'guesser')
  const outcomes = outcomesOf([check('user0', 'canary', 'elsewhere')])
  for (let i = 0; i < 2; i++) {
    running[0]?.end(false)
    await settle()
  }
  running.find(({ password }) => password === 'canary')?.end(true)
  await settle()
  assert.deepEqual(outcomes, ['right'])
})

test('a login that is sent again while it waits is compared once; from another address too, unless one of them was right', async () => {
  const { check, running, all } = withThreads({ ann: 'canary' })
  const outcomes = outcomesOf(['a', 'a', 'a', 'b', 'c'].map((source) => check('ann', 'canary', source)))
  await settle()
  assert.deepEqual(all, ['canary', 'canary'])
  running[0]?.end(true)
  await settle()
  assert.deepEqual([outcomes[0], outcomes[4]], ['right', 'right'])
  assert.equal(all.length, 2)
})

/** Who is refused how, if so many names are guessed at once. Nothing else may decide it, so it is the same for known names. */
const floods: [count: number, source: (i: number) => string, busy: number][] = [
  [100, () => 'one', 0],
  // Two are being refused already.
  [130, () => 'one', 28],
  [1100, (i) => `source${i % 50}`, 98],
]
for (const [count, source, busy] of floods) {
  test(`of ${count} names at once ${busy} are busy, known or not; the others wait`, async () => {
    const names = numbered(count, 'user')
    const users = names.slice(0, 20)
    const outcomes: (Check | undefined)[][] = []
    for (const known of [{ ann: 'canary' }, Object.fromEntries(users.map((user) => [user, 'canary']))]) {
      const { check } = withThreads(known)
      outcomes.push(outcomesOf(names.map((name, i) => check(name, 'guess', source(i)))))
    }
    await turnAway()
    assert.equal(outcomes[0]?.filter((outcome) => outcome === 'busy').length, busy)
    assert.deepEqual(outcomes[0], outcomes[1])
  })
}

test('of one name 8 wait, known or not: the newest', async () => {
  for (const name of ['ann', 'nobody']) {
    const { check } = withThreads({ ann: 'canary' })
    const outcomes = outcomesOf(numbered(30, 'guess').map((guess) => check(name, guess, 'client')))
    await turnAway()
    // Two are being refused already.
    assert.deepEqual(outcomes, [undefined, undefined, ...Array(20).fill('busy'), ...Array(8).fill(undefined)])
  }
})

test('of one name a lot decides who is compared next: neither the oldest nor the newest', async () => {
  const seconds = new Set<string | undefined>()
  for (let round = 0; round < 40; round++) {
    const { check, running } = withThreads({ ann: 'canary' })
    for (const guess of numbered(10, 'guess')) check('ann', guess, 'client')
    running[0]?.end(false)
    await settle()
    seconds.add(running[1]?.password)
  }
  assert.ok(seconds.size > 3, [...seconds].join())
})

test('a new IPv6 address for each guess does not help: all addresses of a /64 count as one', async () => {
  const { check } = withThreads({ ann: 'canary' })
  const flood = numbered(30, 'guess').map((guess, i) => check('ann', guess, `2001:db8:0:1:${i}::1`))
  assert.equal(await Promise.race(flood), 'busy')
  const other = outcomesOf([check('ann', 'canary', '2001:db8:0:2::1')])
  await settle()
  assert.deepEqual(other, [undefined])
})

test('a right login that was busy while it was compared is let in when it comes again', async () => {
  const { check, running } = withThreads({ ann: 'canary' })
  for (const name of numbered(2, 'before')) check(name, 'x', 'client')
  const first = outcomesOf([check('ann', 'canary', 'client')])
  for (const name of numbered(100, 'nobody')) check(name, 'x', 'client')
  await turnAway()
  assert.deepEqual(first, ['busy'])
  running[0]?.end(true)
  await settle()
  assert.equal(await check('ann', 'canary', 'client'), 'right')
})

test('a right login is let in if it is found right before it hears that there is no room', async () => {
  const { check, running } = withThreads({ ann: 'canary' })
  for (const name of numbered(2, 'before')) check(name, 'x', 'client')
  // The first 50 hear of it at once, then it is ann's turn.
  for (const name of numbered(150, 'nobody')) check(name, 'x', 'client')
  const ann = check('ann', 'canary', 'client')
  for (const name of numbered(100, 'nobody-else')) check(name, 'x', 'client')
  running[0]?.end(true)
  assert.equal(await ann, 'right')
})

test('a right login that comes again while its busy one is still compared is answered too', async () => {
  const { check, running } = withThreads({ ann: 'canary' })
  for (const name of numbered(2, 'before')) check(name, 'x', 'client')
  check('ann', 'canary', 'client')
  for (const name of numbered(100, 'nobody')) check(name, 'x', 'client')
  const again = check('ann', 'canary', 'client')
  running[0]?.end(true)
  running[0]?.end(true)
  assert.equal(await again, 'right')
})

test('wrong logins are refused two at a time, each after the time of a comparison, known or not', async () => {
  const names = numbered(10, 'user')
  const took: number[] = []
  for (const known of [{ ann: 'canary' }, Object.fromEntries(names.map((user) => [user, 'canary']))]) {
    const { check, running } = withThreads(known, { imitate: after40ms })
    const startedAt = performance.now()
    const checks = names.map((name) => check(name, 'guess', 'client'))
    // Comparisons end at once.
    for (let i = 0; i < 10; i++) {
      for (const one of [...running]) one.end(false)
      await settle()
    }
    assert.deepEqual(new Set(await Promise.all(checks)), new Set(['wrong']))
    took.push(performance.now() - startedAt)
  }
  // Five times 40 ms. A busy machine makes it longer.
  for (const milliseconds of took) assert.ok(milliseconds > 195, `${took}`)
})

test('nobody is told that a login is wrong before it was compared', async () => {
  const { check, running } = withThreads({ ann: 'canary' }, { imitate: async () => {} })
  const outcomes = outcomesOf([check('ann', 'guess', 'client'), check('nobody', 'guess', 'client')])
  assert.equal(await check('nobody', 'other', 'elsewhere'), 'wrong')
  await settle()
  assert.equal(outcomes[0], undefined)
  running[0]?.end(false)
  await settle()
  assert.equal(outcomes[0], 'wrong')
})

test('whoever waits too long hears that there is no room, known or not', async () => {
  const file = fileOf({ ann: 'canary' })
  const threads = { isMeasured: true, imitate: never, compare: () => new Promise<boolean>(() => {}) }
  const passwords = new Passwords(file.file, file.now, file.log, threads, 50)
  const names = ['ann', 'nobody', 'ann', 'nobody', 'ann', 'nobody']
  const checks = names.map((name, i) => passwords.check(name, `guess${i}`, 'client'))
  assert.deepEqual(new Set(await Promise.all(checks)), new Set(['busy']))
})

test('a comparison that fails is no answer, and keeps nobody waiting', async () => {
  const file = fileOf({ ann: 'canary' })
  let fails = true
  const compare = async () => {
    if (fails) throw new Error('the thread ended')
    return true
  }
  const passwords = new Passwords(file.file, file.now, file.log, { isMeasured: true, imitate: async () => {}, compare })
  for (const guess of ['a', 'b', 'c']) await assert.rejects(passwords.check('ann', guess, 'client'), /the thread ended/)
  // One that is turned away while its comparison fails was answered already.
  const turnedAway = outcomesOf(numbered(40, 'guess').map((guess) => passwords.check('ann', guess, 'client')))
  await turnAway()
  assert.ok(turnedAway.includes('busy'))
  fails = false
  assert.equal(await passwords.check('ann', 'canary', 'client'), 'right')
})

test('what is not urgent is spread over time, until too many wait: the rest does not wait', () => {
  const clock = { now: 0 }
  const pace = new Pace({ perInterval: 2, intervalMs: 100, maxIntervals: 3 }, () => clock.now)
  const delays = (count: number) => Array.from({ length: count }, () => pace.delayMs())
  clock.now = 1010
  assert.deepEqual(delays(10), [0, 0, 90, 90, 190, 190, 290, 290, 0, 0])
  clock.now = 1110
  assert.deepEqual(delays(4), [290, 290, 0, 0])
  clock.now = 2500
  assert.deepEqual(delays(3), [0, 0, 100])
})

test('the log has the first wrong login of each address, and the number of those that follow', async () => {
  const logged: LogFields[] = []
  const failures = new Failures((level, message, fields) => logged.push({ level, message, ...fields }), 50)
  const line = (user: string, client: string, failures: number) => {
    return { level: 'warn', message: 'wrong login', user, client, failures }
  }
  for (let i = 0; i < 1000; i++) failures.add('network-a', `ann${i}`, 'a')
  failures.add('network-b', 'bob\n', 'b')
  assert.deepEqual(logged, [line('ann0', 'a', 1), line('bob\ufffd', 'b', 1)])
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.deepEqual(logged.slice(2), [line('ann999', 'a', 1000)])
  failures.add('network-a', 'ann', 'a')
  assert.deepEqual(logged.slice(3), [line('ann', 'a', 1)])
})

test('wrong logins from many addresses fill no log', async () => {
  let lines = 0
  const failures = new Failures(() => lines++, 50)
  for (let i = 0; i < 10_000; i++) failures.add(`network-${i % 5000}`, 'ann', 'a')
  assert.equal(lines, 101)
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.equal(lines, 202)
})

test('the source of a login is an address, or the /64 of an IPv6 host', () => {
  assert.equal(networkOf('10.0.0.1'), '10.0.0.1')
  assert.equal(networkOf('2001:db8:1:2:3:4:5:6'), networkOf('2001:db8:1:2::9'))
  assert.notEqual(networkOf('2001:db8:1:2::1'), networkOf('2001:db8:1:3::1'))
})

/** peer, X-Forwarded-For, trusted proxies; the client's address */
const clients: [peer: string | undefined, forwardedFor: string | null, trusted: string, client: string | undefined][] =
  [
    ['10.0.0.1', '192.0.2.1', '', '10.0.0.1'],
    ['10.0.0.1', '192.0.2.1', '10.0.0.2', '10.0.0.1'],
    ['10.0.0.1', '192.0.2.1', '10.0.0.0/8', '192.0.2.1'],
    ['10.0.0.1', '192.0.2.1', '10.0.0.1', '192.0.2.1'],
    ['10.0.0.1', '6.6.6.6, 192.0.2.1', '10.0.0.0/8', '192.0.2.1'],
    ['10.0.0.1', '6.6.6.6,192.0.2.1 ,10.0.0.2,  10.0.0.3', '10.0.0.0/8', '192.0.2.1'],
    ['10.0.0.1', '10.0.0.3, 10.0.0.2', '10.0.0.0/8', '10.0.0.3'],
    ['10.0.0.1', '6.6.6.6, 172.16.0.1, 10.0.0.2', '10.0.0.0/8,172.16.0.0/12', '6.6.6.6'],
    ['10.0.0.1', null, '10.0.0.0/8', '10.0.0.1'],
    ['10.0.0.1', '', '10.0.0.0/8', '10.0.0.1'],
    [undefined, '192.0.2.1', '0.0.0.0/0,::/0', undefined],
    // What is no address ends the reading at the last good one.
    ['10.0.0.1', '192.0.2.1, unknown', '10.0.0.0/8', '10.0.0.1'],
    ['10.0.0.1', '192.0.2.1, , 10.0.0.2', '10.0.0.0/8', '10.0.0.2'],
    ['10.0.0.1', '192.0.2.1, 999.0.0.1, 10.0.0.2', '10.0.0.0/8', '10.0.0.2'],
    ['10.0.0.1', '192.0.2.1, 010.0.0.3, 10.0.0.2', '10.0.0.0/8', '10.0.0.2'],
    ['10.0.0.1', '192.0.2.1, fe80::1%eth0, 10.0.0.2', '10.0.0.0/8', '10.0.0.2'],
    ['10.0.0.1', '192.0.2.1, 10.0.0.2]', '10.0.0.0/8', '10.0.0.1'],
    // Ports, brackets, IPv6, and IPv4 in it.
    ['10.0.0.1', '192.0.2.1:4711, 10.0.0.2:80', '10.0.0.0/8', '192.0.2.1'],
    ['10.0.0.1', '[2001:DB8::0:1]:4711', '10.0.0.0/8', '2001:db8::1'],
    ['10.0.0.1', '2001:db8:0::1', '10.0.0.0/8', '2001:db8::1'],
    ['fd00::1', '192.0.2.1, fd00::2', 'fd00::/8', '192.0.2.1'],
    ['fd00::1', '192.0.2.1', 'fd00::/64', '192.0.2.1'],
    ['fd00:0:0:1::1', '192.0.2.1', 'fd00::/64', 'fd00:0:0:1::1'],
    ['10.0.0.1', '::ffff:192.0.2.1, ::ffff:10.0.0.2, ::ffff:a00:3', '10.0.0.0/8', '192.0.2.1'],
    ['10.0.0.1', '192.0.2.1, 10.9.0.2, 10.1.0.2', '::ffff:10.0.0.0/112,::ffff:10.1.0.2', '10.9.0.2'],
    // An IPv6 network never has IPv4 addresses, on any runtime.
    ['10.0.0.1', '192.0.2.1', '::/0', '10.0.0.1'],
    ['fd00::1', '192.0.2.1', '0.0.0.0/0', 'fd00::1'],
  ]
for (const [peer, forwardedFor, trusted, client] of clients) {
  test(`${peer} says X-Forwarded-For: ${forwardedFor}; trusted: ${trusted}: the client is ${client}`, () => {
    assert.equal(clientAddress(peer, forwardedFor, new Networks(networks(trusted))), client)
  })
}
