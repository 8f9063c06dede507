/** All that can be found before there is traffic: the table of findings. */
import { loopError } from '../registry/loop.ts'
import { ofQuestions, type Row } from './further.ts'

/** Seen by reading the settings. */
const ofSettings = {
  'setting-wrong': [
    'error',
    'a setting is missing or wrong',
    'the router does not start',
    'correct it as the line says',
  ],
  'misspelt-variable': [
    'warning',
    'a variable is nearly a setting of this router, and has no effect',
    'the setting that was meant has its default',
    'rename it as --help has it, or remove it',
  ],
  'same-registry': [
    'error',
    'it has the same address as another registry',
    'each name is looked for in one place only, and what one of them has is never found',
    'give each its own address',
  ],
  'own-address': [
    'warning',
    "a registry's address is this router's own",
    'unless the name means another host in here, the router asks itself',
    'set the address of the registry itself',
  ],
  'names-unset': [
    'warning',
    'any name of the public registry shadows the same name in hosted',
    'somebody else can publish an image under the name of yours',
    'list your own in HOSTED_NAMES, or the public ones in PROXY_NAMES',
  ],
  'user-unknown': [
    'warning',
    'PUSH_USERS names somebody who is not in HTPASSWD_FILE',
    'nobody can log in by this name',
    'correct the one or the other',
  ],
  'own-certificate-expired': [
    'error',
    "this router's own certificate has expired",
    'clients refuse it',
    'put a new one into TLS_CERT_FILE and TLS_KEY_FILE',
  ],
  'own-certificate-early': [
    'error',
    "this router's own certificate is not valid yet",
    'clients refuse it until then',
    'wait, correct the clock, or put another one into TLS_CERT_FILE',
  ],
  'own-certificate-name': [
    'error',
    "this router's own certificate does not have the name in AGGREGATE_HOSTNAME",
    'clients that call it by this name refuse it',
    'get a certificate for this name, or set AGGREGATE_HOSTNAME to the one it has',
  ],
  'own-certificate-ends': [
    'warning',
    "this router's own certificate ends within two weeks",
    'clients will refuse it then',
    'renew it: the files are read anew when they change',
  ],
} satisfies Record<string, Row>

/** Seen by the answer of a registry to `/v2/`. */
const ofPings = {
  open: [
    'warning',
    'open: anybody who reaches this router may push and delete',
    'HTPASSWD_FILE is not set, and hosted asks for no login',
    'set HTPASSWD_FILE, or let hosted ask for logins, unless this is meant',
  ],
  'leads-back': [
    'error',
    loopError.message,
    'the router asks itself until the request is too long',
    'set the address of the registry itself',
  ],
  'host-unknown': ['error', 'its host name does not resolve', 'it is never reached', 'correct the host, or the DNS'],
  unreachable: [
    'error',
    'nothing listens at its address',
    'it is never reached',
    'start it, or correct the host and the port',
  ],
  'no-answer': [
    'error',
    'it gives no answer',
    'it is never reached',
    'look at its log, and correct the host and the port',
  ],
  timeout: [
    'error',
    'it gives no answer in time',
    'it is slow, or a firewall drops what is sent to it',
    'correct the host and the port, or the firewall',
  ],
  'http-for-https': [
    'error',
    'it speaks https, and its address says http',
    'it refuses every request',
    'give its address with https://',
  ],
  'https-for-http': [
    'error',
    'it speaks http, and its address says https',
    'no connection opens',
    'give its address with http://, or make it speak https',
  ],
  'certificate-expired': ['error', 'its certificate has expired', 'no connection opens', 'renew the certificate there'],
  'certificate-early': [
    'error',
    'its certificate is not valid yet',
    'no connection opens until then',
    'correct the clock here or there, or the certificate',
  ],
  'certificate-name': [
    'error',
    'its certificate does not have the name in its address',
    'no connection opens',
    'give the address by a name that the certificate has',
  ],
  'certificate-authority': [
    'error',
    'its certificate is of an authority that is not trusted here',
    'no connection opens',
    'put the certificate of the authority into CA_FILE; if it is there, the registry leaves out a certificate in between',
  ],
  'not-a-registry': [
    'error',
    'what answers at its address is no registry',
    'a registry says 200 or 401 to /v2/',
    'correct the host, the port and the path',
  ],
  unwell: [
    'error',
    'it is not well, or what stands in front of it is not',
    'it answers with an error of its own',
    'look at its log',
  ],
  'rate-limited': [
    'warning',
    'it limits the rate of requests',
    'what only it has is 429 until that is over',
    'give the cache an account there, or the router one at the cache',
  ],
  'login-refused': [
    'error',
    'it refuses the login of this router',
    'nothing is read from it or pushed to it',
    'correct the user and the password, or the rights of that account',
  ],
  'login-missing': [
    'error',
    'it wants a login that this router does not have',
    'nothing is read from it or pushed to it',
    'set the user and the password for it',
  ],
} satisfies Record<string, Row>

export const table = { ...ofSettings, ...ofPings, ...ofQuestions }

export type Code = keyof typeof table
