/** What only further questions show: the second part of the table of findings. */

/** `error`: it would not work. `warning`: it works, but hardly as it is meant. `note`: something could not be looked at. */
export type Severity = 'error' | 'warning' | 'note'

export type Row = readonly [severity: Severity, what: string, why: string, remedy: string]

/** Seen by the questions that only `check` asks. */
export const ofQuestions = {
  swapped: [
    'error',
    'it is a pull-through cache, and the proxy is none',
    'hosted takes no push, and private images are not found',
    'exchange HOSTED_HOSTNAME and PROXY_HOSTNAME',
  ],
  'hosted-is-cache': [
    'error',
    'it is a pull-through cache',
    'it takes no push',
    'set HOSTED_HOSTNAME to the registry that has your own images',
  ],
  'cache-cut-off': [
    'error',
    'the cache answers, but cannot ask the registry that it caches',
    'public images that it does not hold are not found',
    'look at its log: its own upstream, its login there, or its network',
  ],
  'lookup-fails': [
    'error',
    'it answers /v2/, but gives no usable answer about an image that it lacks',
    'a lookup of what it lacks fails with 502',
    'look at its log, and correct the address',
  ],
  'path-unknown': [
    'error',
    'the path in its address leads nowhere',
    'no image is found under it',
    'correct the path: what stands before image names there, without /v2',
  ],
  'path-unproven': [
    'warning',
    'the path in its address may lead nowhere',
    'it answers as it does to a path that nobody has',
    'correct the path, or pull an image that it must have',
  ],
  'cache-hides-tags': [
    'warning',
    'the cache lists only the tags that it holds',
    'with TAGS=lookup clients see too few tags of public images',
    'set TAGS=hosted, or take a cache that asks for the list',
  ],
  'glob-without-stars': [
    'warning',
    'a glob in HOSTED_NAMES matches no repository, but stands before some',
    'the public registry is asked for them, and its images come first',
    'write NAME/** in place of NAME',
  ],
  'glob-unused': [
    'warning',
    'a glob in HOSTED_NAMES matches no repository in hosted',
    'it may be misspelt, and then guards nothing',
    'correct it, or leave it if the images are still to come',
  ],
  'hidden-by-prefix': [
    'warning',
    'repositories in hosted begin with the host of a public registry',
    'only that registry is asked for them',
    'list them in HOSTED_NAMES, or move them',
  ],
  'catalog-unread': [
    'note',
    'it does not list its repositories here',
    'the names in it could not be compared with the settings',
    'nothing',
  ],
  'push-refused': [
    'error',
    'it does not open an upload for this name',
    'it cannot be pushed',
    'give the account of this router the right to push it, or look at the log of hosted',
  ],
  'push-unproven': [
    'note',
    'it wants the login of a client for this upload',
    'whether it can be pushed is not known without one',
    'try a push with a login',
  ],
  'upload-left': [
    'note',
    'the upload that was opened could not be cancelled',
    'hosted removes it some time later',
    'nothing',
  ],
} satisfies Record<string, Row>
