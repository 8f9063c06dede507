/** The thread that checks passwords, so that nothing else waits for it. JavaScript, since tsx loads no TypeScript in threads. */
import { getPriority, platform, setPriority } from 'node:os'
import { parentPort } from 'node:worker_threads'
import { compareSync } from 'bcryptjs'

// Requests come first, but logins still get a quarter of a busy core: five steps lower. Only on Linux has a thread a priority of its
// own: elsewhere this would be the whole process's.
try {
  if (platform() === 'linux') setPriority(getPriority() + 5)
} catch {
  // A sandbox may forbid it.
}

parentPort?.on('message', ([password, hashes]) => {
  const startedAt = performance.now()
  // All hashes are computed, for their time; the first one decides.
  const [isRight] = hashes.map((hash) => compareSync(password, hash))
  parentPort?.postMessage([isRight, performance.now() - startedAt])
})
