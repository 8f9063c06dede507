/** `npm run build`: writes a release into dist/: two binaries, the npm package, what is in them (licences, SBOM), checksums. */
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
/** Scanners look for this ending. */
const sbom = 'sbom.cdx.json'
/** The npm package with the Bun binary of each architecture. */
const runtimes = { x64: '@oven/bun-linux-x64', arm64: '@oven/bun-linux-aarch64' }
type Architecture = keyof typeof runtimes

const run = (program: string, ...args: string[]) =>
  execFileSync(program, args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
const binary = (architecture: Architecture) => `combined-registry-linux-${architecture}`

/** Builds the binary of one architecture. Gives its file name. */
function build(architecture: Architecture): string {
  withTemporaryFolder((folder) => {
    const options = [`--target=bun-linux-${architecture}`, `--compile-executable-path=${bun(architecture, folder)}`]
    run('npm', 'run', '--silent', 'build:binary', '--', ...options, '--outfile', join(dist, binary(architecture)))
  })
  return binary(architecture)
}

/** Calls `use` with a temporary folder, and removes the folder afterwards. */
function withTemporaryFolder<T>(use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'combined-registry-build-'))
  try {
    return use(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/**
 * The path of the Bun binary to embed. If Bun for this architecture is not installed, it is downloaded into `folder`.
 * Throws if the download does not match package-lock.json.
 */
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

/** Bundles the program into one file in `folder`. Writes the licences and the SBOM of the bundled packages into dist/. */
function bundle(folder: string): void {
  run('npm', 'run', '--silent', 'build:package', '--', '--outdir', folder)
  const programs = readdirSync(folder).map((file) => readFileSync(join(folder, file), 'utf8'))
  const packages = packagesIn(programs.join('\n'))
  writeFileSync(join(dist, licences), licencesOf(packages))
  writeFileSync(join(dist, sbom), sbomOf(packages))
}

/** Builds the npm package with the bundle, which starts three times as fast as the sources. Gives the file name. */
function buildPackage(): string {
  return withTemporaryFolder((folder) => {
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

/** The bundled packages by name, from the comments that the bundler leaves. */
function packagesIn(program: string): string[] {
  const comments = program.matchAll(/^\/\/ (?:.*\/)?node_modules\/((?:@[^/\n]+\/)?[^/\n]+)\//gm)
  return [...new Set([...comments].map(([, name = '']) => name))].sort()
}

/** The licences of these packages, which must be distributed with the program. Throws if a package has none. */
function licencesOf(packages: string[]): string {
  const texts = packages.map((name) => {
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

/** Parts of an SBOM in CycloneDX, as far as they are needed here. */
interface Component {
  'bom-ref': string
}
interface Edge {
  ref: string
  dependsOn: string[]
}

/**
 * What is inside a binary, for scanners, which cannot look into it: these packages and Bun. In CycloneDX, by npm, without what
 * differs from build to build. Throws if npm does not know one of them.
 */
function sbomOf(packages: string[]): string {
  const {
    serialNumber: _,
    metadata,
    components,
    dependencies,
    ...rest
  } = JSON.parse(run('npm', 'sbom', '--sbom-format=cyclonedx', '--package-lock-only'))
  const { tools, component } = metadata
  const refs = [...packages, 'bun'].map((name) => `${name}@${versionOf(name)}`)
  const inside = components.filter((one: Component) => refs.includes(one['bom-ref']))
  if (inside.length !== refs.length) throw new Error(`npm sbom does not have all of ${refs.join(', ')}`)
  const edges = dependencies.filter(({ ref }: Edge) => [component['bom-ref'], ...refs].includes(ref))
  const bom = {
    ...rest,
    metadata: { tools, component: { ...component, type: 'application', name: manifest.name } },
    // npm takes Bun for a tool of developers.
    components: inside.map((one: Component) => ({ ...one, scope: 'required', properties: [] })),
    dependencies: edges.map(({ ref, dependsOn }: Edge) => ({
      ref,
      dependsOn: dependsOn.filter((one) => refs.includes(one)),
    })),
  }
  return `${JSON.stringify(bom, null, 2)}\n`
}

const versionOf = (name: string): string =>
  JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8')).version

mkdirSync(dist, { recursive: true })
/** `npm run build -- arm64` builds only that binary, the licences and the SBOM, for the image. Docker calls x64 `amd64`. */
const [wanted = ''] = process.argv.slice(2).map((argument) => argument.replace('amd64', 'x64'))
if (wanted && !(wanted in runtimes)) throw new Error(`no architecture ${wanted}: ${Object.keys(runtimes).join(', ')}`)
if (wanted) {
  build(wanted as Architecture)
  withTemporaryFolder(bundle)
} else {
  const binaries = (Object.keys(runtimes) as Architecture[]).map(build)
  const sums = [...binaries, buildPackage(), licences, sbom].map((file) => {
    const sum = createHash('sha256')
      .update(readFileSync(join(dist, file)))
      .digest('hex')
    return `${sum}  ${file}\n`
  })
  writeFileSync(join(dist, 'SHA256SUMS'), sums.join(''))
  console.log(sums.join('').trimEnd())
}
