/** What to type to point clients at this router. */
import { html } from 'hono/html'

export function clientsIn(router: URL) {
  const items = Object.entries(clientsOf(router)).map(
    ([name, text]) => html`<details><summary>${name}</summary><pre>${text}</pre></details>`,
  )
  return html`<div class="clients">${items}</div>`
}

function clientsOf({ host, origin, protocol }: URL) {
  const [daemon, insecure] =
    protocol === 'http:'
      ? [`\n\n# plain http: /etc/docker/daemon.json\n{ "insecure-registries": ["${host}"] }`, '\ninsecure = true']
      : ['', '']
  return {
    docker: `docker pull ${host}/library/nginx\ndocker push ${host}/team/app:1.0${daemon}`,
    containerd: `# /etc/containerd/certs.d/${host}/hosts.toml
server = "${origin}"

[host."${origin}"]
  capabilities = ["pull", "resolve", "push"]`,
    'podman, buildah, skopeo': `# /etc/containers/registries.conf.d/registry.conf
[[registry]]
location = "${host}"${insecure}`,
    Kubernetes: `# in a pod; the nodes' containerd has the hosts.toml above
image: ${host}/team/app:1.0

# if a login is needed, for imagePullSecrets
kubectl create secret docker-registry registry --docker-server=${host} --docker-username=U --docker-password=P`,
  }
}
