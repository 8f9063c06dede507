/** The style of the page, and the header fields that let a browser use that style and nothing else. */
import { createHash } from 'node:crypto'

export const style = `
:root { color-scheme: light dark; --good: #116329; --warn: #7a4b00; --amber: #c77700; --bad: #b3261e; --line: #8888; --tint: #f6f7f8; --glow: #fff4df }
@media (prefers-color-scheme: dark) { :root { --good: #6fdd8b; --warn: #f2c063; --amber: #f2a623; --bad: #ff9b90; --tint: #1d1f21; --glow: #2b210f } }
* { box-sizing: border-box }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 72rem; margin: auto; padding: 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.8rem; margin: 0; line-height: 1.2 } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem }
h3 { font-size: 1rem; margin: 0 } p { margin: .25rem 0 }
.boxes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); gap: 1rem }
.box, .note { border: 1px solid var(--line); border-left: .4rem solid; border-radius: .3rem; padding: .6rem 1rem; background: var(--tint) }
.note { margin: .75rem 0 }
.state { display: flex; flex-wrap: wrap; gap: 0 .75rem; font-size: 1.4rem; line-height: 1.3; font-variant-numeric: tabular-nums }
.good { border-left-color: var(--good) } .warn { border-left-color: var(--amber); background: var(--glow) } .bad { border-left-color: var(--bad) }
.good b { color: var(--good) } .warn b { color: var(--warn) } .bad b, li > b { color: var(--bad) }
form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center } input { flex: 1 1 12rem; min-width: 0 }
input, button { font: inherit; padding: .4rem .7rem } summary { padding: .3rem 0; cursor: pointer }
:focus-visible { outline: .2rem solid var(--good); outline-offset: .1rem }
ol { padding-left: 1.5rem } li { margin-bottom: .75rem }
.clients { display: flex; flex-wrap: wrap; gap: 0 2rem } .clients > [open] { flex-basis: 100% }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: .5rem 0 } th, td { border-bottom: 1px solid var(--line); padding: .3rem 1rem .3rem 0; text-align: left; vertical-align: top }
.wide th, .wide td { overflow-wrap: normal } th { overflow-wrap: normal }
pre { white-space: pre-wrap; border: 1px solid var(--line); border-radius: .3rem; padding: .6rem; margin: .5rem 0 }
`
const hash = createHash('sha256').update(style).digest('base64')
/** The page runs no script, loads nothing, is framed by nobody, and has no form that leads elsewhere. */
export const pageHeaders = {
  'Content-Security-Policy': `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'`,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
}
