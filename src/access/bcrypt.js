/** The thread that checks passwords, so that nothing else waits for it. JavaScript, since tsx loads no TypeScript in threads. */
import { parentPort } from 'node:worker_threads'
import { compareSync } from 'bcryptjs'

// All hashes are computed, for their time; the first one decides.
parentPort?.on('message', ([password, hashes]) => {
  const [isRight] = hashes.map((hash) => compareSync(password, hash))
  parentPort?.postMessage(isRight)
})
