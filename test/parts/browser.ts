/** A real Chromium, driven as a person would: over the pipe it offers (Chrome DevTools Protocol), without a library. */
import { spawn } from 'node:child_process'
import { adopt, temporaryFolder, until } from './children.ts'
import { program } from './packages.ts'

// biome-ignore lint/suspicious/noExplicitAny: the protocol's own types are a package of 3 MB.
type Any = any

export interface Browser {
  /** Opens an address and waits until it is there. */
  goto: (url: string) => Promise<void>
  /** The value of an expression in the page. */
  read: (expression: string) => Promise<Any>
  /** Types into what has the focus; `\r` is the Enter key, which is waited for until another page is there. */
  type: (text: string) => Promise<void>
  /** The window: its width in pixels, and which scheme the person prefers. */
  look: (width: number, scheme: 'light' | 'dark') => Promise<void>
  /** From now on answers login prompts so; how many there were is in `prompts`. */
  logIn: (username: string, password: string) => Promise<void>
  prompts: string[]
  /** What the page asked for that was refused, or complained of: nothing, hopefully. */
  complaints: string[]
  /** What the window shows, as PNG. */
  screenshot: () => Promise<Buffer>
  close: () => Promise<unknown>
}

export const browsers = ['chromium', 'chromium-browser', 'google-chrome']

/** Undefined where there is none, and none can be installed. */
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
  const [toIt, fromIt] = [child.stdio[3] as NodeJS.WritableStream, child.stdio[4] as NodeJS.ReadableStream]
  const waiting = new Map<number, { resolve: (result: Any) => void; reject: (error: Error) => void }>()
  const prompts: string[] = []
  const complaints: string[] = []
  let login: object = { response: 'CancelAuth' }
  let loads = 0
  let session: string | undefined
  let calls = 0

  const call = (method: string, params: object = {}): Promise<Any> =>
    new Promise((resolve, reject) => {
      waiting.set(++calls, { resolve, reject })
      toIt.write(`${JSON.stringify({ id: calls, method, params, sessionId: session })}\0`)
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
  let text = ''
  fromIt.setEncoding('utf8')
  fromIt.on('data', (chunk: string) => {
    const messages = (text + chunk).split('\0')
    text = messages.pop() as string
    for (const { id, method, params, result, error } of messages.map((message) => JSON.parse(message))) {
      if (id && error) waiting.get(id)?.reject(new Error(error.message))
      else if (id) waiting.get(id)?.resolve(result)
      else events[method]?.(params)
    }
  })
  /** Does it, and waits until another page is there. */
  const anotherPage = async (act: () => Promise<unknown>) => {
    const before = loads
    await act()
    await until('the page', () => loads > before)
  }

  const { targetId } = await call('Target.createTarget', { url: 'about:blank' })
  session = (await call('Target.attachToTarget', { targetId, flatten: true })).sessionId
  for (const domain of ['Page', 'Log', 'Runtime']) await call(`${domain}.enable`)
  await call('Fetch.enable', { handleAuthRequests: true })
  const key = { key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 13, text: '\r' }
  return {
    goto: (url) => anotherPage(() => call('Page.navigate', { url })),
    read: async (expression) => {
      const { result, exceptionDetails } = await call('Runtime.evaluate', { expression, returnByValue: true })
      if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails))
      return result.value
    },
    type: async (text) => {
      await call('Input.insertText', { text: text.replace('\r', '') })
      if (text.endsWith('\r')) {
        await anotherPage(async () => {
          for (const type of ['keyDown', 'keyUp']) await call('Input.dispatchKeyEvent', { type, ...key })
        })
      }
    },
    look: async (width, scheme) => {
      const metrics = { width, height: 900, deviceScaleFactor: 1, mobile: width < 600 }
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
