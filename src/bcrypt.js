/** The thread in which passwords are checked, so that nothing else waits for it. JavaScript: tsx loads no other threads. */
import { parentPort } from 'node:worker_threads'
import { compareSync } from 'bcryptjs'

parentPort?.on('message', ([password, hash]) => parentPort?.postMessage(compareSync(password, hash)))
