/** Drives a real Chromium through its pipe (Chrome DevTools Protocol), without a library. */
import { spawn } from 'node:child_process'
import { adopt, temporaryFolder } from './children.ts'
import { program } from './packages.ts'
import { until } from './until.ts'

// biome-ignore lint/suspicious/noExplicitAny: the package of the protocol's types has 3 MB.
type Any = any

export interface Browser {
  /** Opens a URL and waits until the page has loaded. */
  goto: (url: string) => Promise<void>
  /** Evaluates a JavaScript expression in the page; throws if the expression does. */
  read: (expression: string) => Promise<Any>
  /** Presses Tab, and gives what has the focus then: its tag, and whether a person sees that. */
  tab: () => Promise<{ tag: string; isSeen: boolean }>
  /** Each control, heading and region as a screen reader has it: role and name, in the order of the page. */
  readAloud: () => Promise<{ role: string; name: string; level?: number }[]>
  /** Types into the focused element. A final `\r` presses Enter and waits until the next page has loaded. */
  type: (text: string) => Promise<void>
  /** Sets the size of the window in pixels, the preferred colour scheme, and the device's pixels for each of these. */
  look: (widthPixels: number, scheme: 'light' | 'dark', more?: { height?: number; scale?: number }) => Promise<void>
  /** Uses these credentials for login prompts from now on. */
  logIn: (username: string, password: string) => Promise<void>
  /** Each login prompt so far: scheme and realm. */
  prompts: string[]
  /** The entries of the browser log, such as failed requests and blocked content. */
  complaints: string[]
  /** A PNG of the window. */
  screenshot: () => Promise<Buffer>
  close: () => Promise<unknown>
}

/** The roles of what a person uses, or goes to. */
const spoken = new Set([
  'heading',
  'link',
  'button',
  'textbox',
  'region',
  'DisclosureTriangle',
  'columnheader',
  'rowheader',
])

export const browsers = ['chromium', 'chromium-browser', 'google-chrome']

/** Starts Chromium. Gives undefined if it is missing and cannot be installed. */
export async function findBrowser(say: (line: string) => void): Promise<Browser | undefined> {
  const chromium = await program(browsers, 'chromium', say)
  if (!chromium) return undefined
  const options = [
    '--headless',
    '--no-sandbox',
    '--remote-debugging-pipe',
    '--disable-dev-shm-usage',
    '--hide-scrollbars',
  ]
  const child = spawn(chromium, [...options, `--user-data-dir=${temporaryFolder()}`], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
  })
  adopt(child.pid as number)
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const [toChromium, fromChromium] = [child.stdio[3] as NodeJS.WritableStream, child.stdio[4] as NodeJS.ReadableStream]
  const pendingCalls = new Map<number, { resolve: (result: Any) => void; reject: (error: Error) => void }>()
  const prompts: string[] = []
  const complaints: string[] = []
  let login: object = { response: 'CancelAuth' }
  let loads = 0
  let session: string | undefined
  let lastCallId = 0

  const call = (method: string, params: object = {}): Promise<Any> =>
    new Promise((resolve, reject) => {
      pendingCalls.set(++lastCallId, { resolve, reject })
      toChromium.write(`${JSON.stringify({ id: lastCallId, method, params, sessionId: session })}\0`)
    })
  const events: Record<string, (params: Any) => void> = {
    'Page.loadEventFired': () => loads++,
    'Log.entryAdded': ({ entry }) => complaints.push(entry.text),
    'Fetch.requestPaused': ({ requestId }) => call('Fetch.continueRequest', { requestId }),
    'Fetch.authRequired': ({ requestId, authChallenge }) => {
      prompts.push(`${authChallenge.scheme} ${authChallenge.realm}`)
      call('Fetch.continueWithAuth', { requestId, authChallengeResponse: login })
    },
  }
  let incomplete = ''
  fromChromium.setEncoding('utf8')
  fromChromium.on('data', (chunk: string) => {
    const messages = (incomplete + chunk).split('\0')
    incomplete = messages.pop() as string
    for (const { id, method, params, result, error } of messages.map((message) => JSON.parse(message))) {
      if (id && error) pendingCalls.get(id)?.reject(new Error(error.message))
      else if (id) pendingCalls.get(id)?.resolve(result)
      else events[method]?.(params)
    }
  })
  const waitForPageAfter = async (act: () => Promise<unknown>) => {
    const before = loads
    await act()
    await until('the page', () => loads > before)
  }

  const { targetId } = await call('Target.createTarget', { url: 'about:blank' })
  session = (await call('Target.attachToTarget', { targetId, flatten: true })).sessionId
  for (const domain of ['Page', 'Log', 'Runtime']) await call(`${domain}.enable`)
  await call('Fetch.enable', { handleAuthRequests: true })
  const enter = { key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 13, text: '\r' }
  const press = async (key: object) => {
    for (const type of ['keyDown', 'keyUp']) await call('Input.dispatchKeyEvent', { type, ...key })
  }
  const read = async (expression: string) => {
    const { result, exceptionDetails } = await call('Runtime.evaluate', { expression, returnByValue: true })
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails))
    return result.value
  }
  return {
    goto: (url) => waitForPageAfter(() => call('Page.navigate', { url })),
    read,
    tab: async () => {
      await press({ key: 'Tab', code: 'Tab', windowsVirtualKeyCode: 9 })
      const isSeen = "one.matches(':focus-visible') && getComputedStyle(one).outlineStyle !== 'none'"
      return read(`(() => { const one = document.activeElement; return { tag: one.localName, isSeen: ${isSeen} } })()`)
    },
    readAloud: async () => {
      const { nodes } = await call('Accessibility.getFullAXTree')
      return nodes
        .filter(({ ignored, role }: Any) => !ignored && spoken.has(role.value))
        .map(({ role, name, properties }: Any) => {
          const level = properties.find((one: Any) => one.name === 'level')?.value.value
          return { role: role.value, name: name.value, level }
        })
    },
    type: async (text) => {
      await call('Input.insertText', { text: text.replace('\r', '') })
      if (text.endsWith('\r')) {
        await waitForPageAfter(() => press(enter))
      }
    },
    look: async (widthPixels, scheme, { height = 900, scale = 1 } = {}) => {
      const metrics = { width: widthPixels, height, deviceScaleFactor: scale, mobile: widthPixels < 600 }
      await call('Emulation.setDeviceMetricsOverride', metrics)
      await call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] })
    },
    logIn: async (username, password) => {
      login = { response: 'ProvideCredentials', username, password }
    },
    prompts,
    complaints,
    screenshot: async () => {
      const { data } = await call('Page.captureScreenshot')
      return Buffer.from(data, 'base64')
    },
    close: () => {
      call('Browser.close').catch(() => {})
      return ended
    },
  }
}
