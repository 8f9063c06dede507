/** The rooms of the source, and which of them may import which, types included. The linter holds the sizes and the circles. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** From the bottom to the top. A room may import itself and what is listed. */
const mayImport: Record<string, string> = {
  'routing.ts': '',
  'log.ts': '',
  runtime: 'log.ts',
  registry: 'runtime routing.ts log.ts',
  memory: 'registry runtime routing.ts',
  access: 'registry runtime routing.ts log.ts',
  relay: 'memory registry runtime routing.ts log.ts',
  report: 'relay registry runtime routing.ts log.ts',
  settings: 'registry runtime routing.ts',
  'arguments.ts': '',
  check: 'settings access relay registry runtime routing.ts log.ts',
  'config.ts': 'settings access registry runtime',
  'registries.ts': 'config.ts check report relay registry runtime log.ts',
  'app.ts': 'report relay access registry runtime routing.ts',
  'service.ts': 'app.ts registries.ts config.ts report relay access memory registry runtime routing.ts log.ts',
  'server.ts': 'arguments.ts service.ts registries.ts config.ts check relay registry runtime log.ts',
}

const files = ['server.ts', 'routing.ts', ...readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })]
  .map((file) => (/^(server|routing)\.ts$/.test(file) ? file : `src/${file}`))
  .filter((file) => /\.[jt]s$/.test(file))
const textOf = (file: string) => readFileSync(join(root, file), 'utf8')
/** `src/relay/copy.ts` is in the room `relay`; a file beside the rooms is a room of its own. */
const roomOf = (file: string) => file.replace(/^src\//, '').replace(/\/.*/, '')
const importsOf = (file: string) =>
  [...textOf(file).matchAll(/(?:from|import\() ?'(\.[^']+)'/g)].map(([, path = '']) =>
    relative(root, join(root, dirname(file), path)),
  )

test('the table of rooms has no circle: a room imports only what is below it', () => {
  const rooms = Object.keys(mayImport)
  for (const [room, allowed] of Object.entries(mayImport)) {
    for (const one of allowed.split(' ').filter(Boolean)) {
      assert.ok(rooms.indexOf(one) < rooms.indexOf(room) && rooms.includes(one), `${room} imports ${one}`)
    }
  }
})

test('every import of the source is in the table of rooms', () => {
  const seen = files.flatMap((file) => importsOf(file).map((path) => [file, roomOf(file), roomOf(path)] as const))
  assert.ok(seen.length > 100)
  for (const [file, room, imported] of seen) {
    if (imported === 'package.json' || imported === room) continue
    assert.ok(mayImport[room]?.split(' ').includes(imported), `${file} imports from ${imported}`)
  }
})

test('only the files that assemble the service know the whole configuration', () => {
  const importers = files.filter((file) => importsOf(file).includes('src/config.ts'))
  assert.deepEqual(importers.sort(), ['server.ts', 'src/registries.ts', 'src/service.ts'])
})

test('every file opens with what it is for', () => {
  for (const file of files) assert.match(textOf(file), /^\/\*\*\s/, file)
})
