/** The thread that checks passwords, so that nothing else waits for it. JavaScript, since tsx loads no TypeScript in threads. */
import { parentPort } from 'node:worker_threads'
import { compareSync } from 'bcryptjs'

parentPort?.on('message', ([password, hash]) => parentPort?.postMessage(compareSync(password, hash)))
