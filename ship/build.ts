/** `npm run build`: what a release is made of, into dist/: two binaries, the npm package, others' licences, checksums. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import manifest from '../package.json' with { type: 'json' }

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = join(root, 'dist')
const licences = 'THIRD-PARTY-LICENSES'
/** Bun for each architecture, as npm has it. */
const runtimes = { x64: '@oven/bun-linux-x64', arm64: '@oven/bun-linux-aarch64' }
type Architecture = keyof typeof runtimes

const run = (program: string, ...args: string[]) =>
  execFileSync(program, args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
const binary = (architecture: Architecture) => `combined-registry-linux-${architecture}`

/** Gives its file's name. */
function build(architecture: Architecture): string {
  within((folder) => {
    const options = [`--target=bun-linux-${architecture}`, `--compile-executable-path=${bun(architecture, folder)}`]
    run('npm', 'run', '--silent', 'build:binary', '--', ...options, '--outfile', join(dist, binary(architecture)))
  })
  return binary(architecture)
}

/** With a folder that goes afterwards. */
function within<T>(use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'combined-registry-build-'))
  try {
    return use(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** The Bun that is to be in the binary: the one installed here, or what package-lock.json pins for that architecture. */
function bun(architecture: Architecture, folder: string): string {
  const name = runtimes[architecture]
  const installed = join(root, 'node_modules', name, 'bin/bun')
  if (existsSync(installed)) return installed
  const { version, integrity } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages[
    `node_modules/${name}`
  ]
  const packed = ['pack', '--silent', '--prefer-offline', '--pack-destination', folder, `${name}@${version}`]
  const tarball = join(folder, run('npm', ...packed).trim())
  const found = `sha512-${createHash('sha512').update(readFileSync(tarball)).digest('base64')}`
  if (found !== integrity) throw new Error(`${name}@${version} is ${found}, not ${integrity} as in package-lock.json`)
  run('tar', '-xzf', tarball, '-C', folder, 'package/bin/bun')
  return join(folder, 'package/bin/bun')
}

/** The program as one file into `folder`, the licences of what is in it into dist/. */
function bundle(folder: string): void {
  run('npm', 'run', '--silent', 'build:package', '--', '--outdir', folder)
  const programs = readdirSync(folder).map((file) => readFileSync(join(folder, file), 'utf8'))
  writeFileSync(join(dist, licences), licencesIn(programs.join('\n')))
}

/** That file starts three times as fast as its sources and needs no other package. Gives the package's name. */
function buildPackage(): string {
  return within((folder) => {
    bundle(folder)
    const { name, version, description, license, private: unpublished, type, engines } = manifest
    const own = { name, version, description, license, private: unpublished, type, engines, bin: { [name]: 'bin.js' } }
    writeFileSync(join(folder, 'package.json'), `${JSON.stringify(own, null, 2)}\n`)
    for (const file of ['LICENSE', 'README.md', `dist/${licences}`]) {
      copyFileSync(join(root, file), join(folder, basename(file)))
    }
    return run('npm', 'pack', '--silent', '--pack-destination', dist, folder).trim()
  })
}

/** The licences of the packages that are in the program, which want to be named where it goes. */
function licencesIn(program: string): string {
  const packages = [...program.matchAll(/^\/\/ (?:.*\/)?node_modules\/((?:@[^/\n]+\/)?[^/\n]+)\//gm)].map(
    ([, name = '']) => name,
  )
  const texts = [...new Set(packages)].sort().map((name) => {
    const folder = join(root, 'node_modules', name)
    const file = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file))
    if (!file) throw new Error(`${name} has no licence`)
    return `${name}\n\n${readFileSync(join(folder, file), 'utf8').trim()}\n`
  })
  const { bun } = manifest.devDependencies
  const url = `https://github.com/oven-sh/bun/blob/bun-v${bun}/LICENSE.md`
  texts.push(`The binaries hold Bun ${bun} (MIT) and what that is made of, JavaScriptCore (LGPL 2) among it: ${url}\n`)
  return texts.join(`\n${'-'.repeat(80)}\n\n`)
}

mkdirSync(dist, { recursive: true })
/** `npm run build -- arm64` is that binary alone, with the licences, for an image; Docker says amd64 for x64. */
const [wanted = ''] = process.argv.slice(2).map((one) => one.replace('amd64', 'x64'))
if (wanted && !(wanted in runtimes)) throw new Error(`no architecture ${wanted}: ${Object.keys(runtimes).join(', ')}`)
if (wanted) {
  build(wanted as Architecture)
  within(bundle)
} else {
  const binaries = (Object.keys(runtimes) as Architecture[]).map(build)
  const sums = [...binaries, buildPackage(), licences].map((file) => {
    const sum = createHash('sha256')
      .update(readFileSync(join(dist, file)))
      .digest('hex')
    return `${sum}  ${file}\n`
  })
  writeFileSync(join(dist, 'SHA256SUMS'), sums.join(''))
  console.log(sums.join('').trimEnd())
}
