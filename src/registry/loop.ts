/** How this router knows a question of its own that comes back: then the address of a registry leads to it. */

/** The `User-Agent` of questions that no client asks: of `check`, and of the start. */
export const checkAgent = (routerHost: string) => `combined-registry-check (${routerHost})`

/** What a router answers to a question that a router of the same name asked. */
export const loopError = {
  code: 'UNSUPPORTED',
  message: 'the address of a registry leads back to this router',
} as const
export const loopStatus = 508

export function isOwnCheck({ headers }: Pick<Request, 'headers'>, routerHost: string): boolean {
  return (headers.get('User-Agent') ?? '').startsWith(checkAgent(routerHost))
}
