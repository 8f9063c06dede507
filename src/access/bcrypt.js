/** The thread that checks passwords, so that nothing else waits for it. JavaScript, since tsx loads no TypeScript in threads. */
import { platform, setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'
import { compareSync } from 'bcryptjs'

// Requests come first. Only on Linux has a thread a priority of its own: elsewhere this would be the whole process's.
try {
  if (platform() === 'linux') setPriority(10)
} catch {
  // A sandbox may forbid it.
}

parentPort?.on('message', ([password, hashes]) => {
  const startedAt = performance.now()
  // All hashes are computed, for their time; the first one decides.
  const [isRight] = hashes.map((hash) => compareSync(password, hash))
  parentPort?.postMessage([isRight, performance.now() - startedAt])
})
