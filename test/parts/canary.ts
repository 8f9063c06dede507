/** A password and a private name that the tests use throughout, and a look for them wherever they do not belong. */

/** As it is, and as the three ways it may lie in base64. */
const secret = /canary|Y2FuYXJ5|NhbmFye|jYW5hcn/
/** HOSTED_NAMES claims it wherever it is asked for. */
const privateName = /kanarie\/app/

/** Throws, so that the test file fails, where the password is in the text. */
export function noSecret(where: string, text: string): void {
  if (secret.test(text)) throw new Error(`a password in ${where}: ${text}`)
}

export function noPrivateName(where: string, text: string): void {
  if (privateName.test(text)) throw new Error(`a private name in ${where}: ${text}`)
}
