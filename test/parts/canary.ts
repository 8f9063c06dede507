/** Detects the test password and the private repository name in places where they must not appear. */

/** `canary` as text, and its three possible base64 encodings (they depend on its offset). */
const secret = /canary|Y2FuYXJ5|NhbmFye|jYW5hcn/
/** Every test that uses this name has it in HOSTED_NAMES, so it must never reach the proxy. */
const privateName = /kanarie\/app/

/** Throws if the text holds the test password. */
export function noSecret(where: string, text: string): void {
  if (secret.test(text)) throw new Error(`a password in ${where}: ${text}`)
}

/** Throws if the text holds the private repository name. */
export function noPrivateName(where: string, text: string): void {
  if (privateName.test(text)) throw new Error(`a private name in ${where}: ${text}`)
}
