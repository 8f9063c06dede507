/** The rules of what is shared by all clients: connections, turns, descriptors, memory, copies. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Connections } from '../src/runtime/connections.ts'
import { Entrance } from '../src/runtime/entrance.ts'
import { Shortage, sharesOf, shortageOr } from '../src/runtime/shortage.ts'

/** Opens connections named `SOURCE NUMBER`, at most four at a time; `closed` are those that were closed for others. */
function crowd(max = 4) {
  const state = { now: 0, max }
  const closed: string[] = []
  const connections = new Connections(
    () => state.max,
    () => state.now,
    () => {},
  )
  const open = (name: string, waitsForClient = true, hasBegun = false) => {
    const [source = ''] = name.split(' ')
    const held = {
      source,
      movedAt: 0,
      waitsForClient: () => waitsForClient,
      hasBegun: () => hasBegun,
      close: () => closed.push(name),
    }
    connections.add(held)
    return held
  }
  return { state, closed, connections, open }
}

test('one connection too many: one of the source with the most goes, the one that did not move for longest', () => {
  const { state, closed, connections, open } = crowd()
  open('b 1')
  const first = open('a 1')
  open('a 2')
  open('a 3')
  state.now = 1000
  connections.moved(first)
  open('c 1')
  assert.deepEqual(closed, ['a 2'])
  assert.equal(connections.size, 4)
  connections.delete(first)
  open('c 2')
  assert.deepEqual(closed, ['a 2'])
})

test('of one source, those go first that wait for their client; one that opens just now is no such one', () => {
  const { state, closed, open } = crowd()
  open('a 1', false)
  open('a 2')
  state.now = 1000
  open('a 3')
  open('a 4')
  open('a 5')
  assert.deepEqual(closed, ['a 2'])
  open('a 6')
  assert.deepEqual(closed, ['a 2', 'a 1'])
})

test('of equal sources, one whose answer has begun goes before one that was just asked for, however long ago that was', () => {
  const { state, closed, open } = crowd()
  open('a 1', false)
  state.now = 10
  open('b 1', false, true)
  open('c 1', false)
  open('d 1', false)
  open('e 1', false)
  assert.deepEqual(closed, ['b 1'])
})

test('if none waits for its client long enough, an answer that has begun goes before one that was just asked for', () => {
  const { closed, open } = crowd()
  open('a 1', false)
  open('a 2', false, true)
  for (const name of ['a 3', 'a 4', 'a 5']) open(name)
  assert.deepEqual(closed, ['a 2'])
})

test('sources of equal size: the one gives way whose connection did not move for longest', () => {
  const { state, closed, connections, open } = crowd()
  const [first] = ['a 1', 'b 1', 'c 1', 'd 1'].map((name) => open(name))
  state.now = 1000
  connections.moved(first as ReturnType<typeof open>)
  open('e 1')
  assert.deepEqual(closed, ['b 1'])
})

test('the bound may fall while connections are open', () => {
  const { state, closed, open } = crowd()
  for (const name of ['a 1', 'a 2', 'a 3', 'b 1']) open(name)
  state.max = 2
  open('b 2')
  assert.deepEqual(closed, ['a 1', 'a 2', 'b 1'])
})

test('descriptors: two for registries for each of a client, and some for the process itself', () => {
  for (const files of [256, 1024, 20_000, 1_048_576]) {
    const { clients, registries } = sharesOf(files)
    assert.ok(registries >= 2 * clients && clients + registries + 48 <= files, `${files}: ${clients} ${registries}`)
    assert.ok(clients > files / 5)
  }
  assert.deepEqual(sharesOf(Number.POSITIVE_INFINITY), { clients: Infinity, registries: Infinity })
  assert.ok(sharesOf(1).clients > 0)
})

test('what this machine ran out of is no failure of a registry', () => {
  const coded = (code: string, errors?: Error[]) => Object.assign(new Error(code), { code, errors })
  for (const [code, resource] of [
    ['EMFILE', 'files'],
    ['ENFILE', 'files'],
    ['EADDRNOTAVAIL', 'ports'],
    ['ENOBUFS', 'memory'],
    ['ENOMEM', 'memory'],
  ] as const) {
    const error = shortageOr(coded(code))
    assert.ok(error instanceof Shortage)
    assert.deepEqual([error.resource, error.message], [resource, code])
  }
  for (const code of ['ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'EHOSTUNREACH', '']) {
    const error = coded(code)
    assert.equal(shortageOr(error), error)
  }
})

test('several addresses: what one of them says is the registry’s, whatever this machine lacks for another', () => {
  const several = (...codes: string[]) =>
    Object.assign(new Error('all failed'), { errors: codes.map((code) => Object.assign(new Error(code), { code })) })
  assert.ok(shortageOr(several('EMFILE', 'EMFILE')) instanceof Shortage)
  assert.ok(!(shortageOr(several('EADDRNOTAVAIL', 'ECONNREFUSED')) instanceof Shortage))
})

/** Lets one turn of the event loop pass. */
const turn = () => new Promise((resolve) => setImmediate(resolve))

/** An entrance in a burst: a connection comes in each turn of the event loop, and each turn takes some milliseconds. */
async function burst() {
  const clock = { now: 0 }
  const entrance = new Entrance(() => clock.now)
  const begun: string[] = []
  const send = (source: string, hasLeft = () => false) =>
    entrance.turn(source, hasLeft)?.then((isHere) => begun.push(isHere ? source : `${source} left`))
  const come = async (turns: number, eachMs = 0) => {
    for (let i = 0; i < turns; i++) {
      entrance.came()
      clock.now += eachMs
      await turn()
    }
  }
  await come(33)
  return { entrance, begun, send, come }
}

test('entrance: a request begins at once, unless connections come in more than 32 turns of the event loop in a row', async () => {
  const entrance = new Entrance()
  for (let i = 0; i < 32; i++) {
    entrance.came()
    assert.equal(
      entrance.turn('a', () => false),
      undefined,
    )
    await turn()
  }
  await turn()
  const { send, come } = await burst()
  assert.ok(send('a'))
  await turn()
  assert.equal(send('a'), undefined, 'no connection has come, and nothing waits')
  await come(32)
  assert.equal(send('a'), undefined)
})

test('entrance: in a burst one request begins in 8 ms, by turns of the sources; a client that has left takes no turn', async () => {
  const { begun, send, come } = await burst()
  let isHere = true
  for (let i = 0; i < 3; i++) send('greedy')
  send('greedy', () => !isHere)
  send('other')
  isHere = false
  await come(8, 1)
  assert.deepEqual(begun, ['greedy'])
  await come(7, 1)
  assert.equal(begun.length, 1)
  await come(1, 1)
  assert.deepEqual(begun, ['greedy', 'other'])
  await come(16, 1)
  assert.deepEqual(begun.slice(2), ['greedy', 'greedy'])
  await come(8, 1)
  assert.deepEqual(begun.slice(4), ['greedy left'])
})

test('entrance: one request begins in each turn if turns take long, or once one has waited for a second', async () => {
  const { begun, send, come } = await burst()
  for (let i = 0; i < 200; i++) send(`${i}`)
  await come(10, 8)
  assert.equal(begun.length, 10)
  await come(80, 4)
  assert.equal(begun.length, 50)
  await come(1, 1000)
  await come(10, 1)
  assert.equal(begun.length, 61)
})

test('entrance: after a burst eight begin in a turn', async () => {
  const { begun, send } = await burst()
  for (let i = 0; i < 20; i++) send(`${i}`)
  for (const count of [8, 16, 20]) {
    await turn()
    assert.equal(begun.length, count)
  }
  assert.equal(send('a'), undefined)
})
