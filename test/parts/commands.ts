/** The real clients that `test/clients.ts` runs, each with its actions as shell commands. */
import { cranePackage, helmPackage } from './go.ts'

/** Who requires a login: hosted by password (`htpasswd`), hosted by token (`tokens`), or the router itself (`here`). */
export type Login = 'htpasswd' | 'tokens' | 'here'

/** A client. Its `string` properties are shell commands. `command()` in `test/clients.ts` sets their variables. */
export interface Client {
  /** How to get it: a program from a Debian package, or a Go package to build. */
  from: { program: string; debian: string } | { go: string }
  /** Tested on all four ways to run the router, not only on the first. */
  everyWay?: true
  /** The repositories to pull from, public first, if it cannot pull the default ones. */
  names?: string[]
  /** Prints its version; not needed for a pinned Go package. */
  version?: string
  /** Pulls $IMAGE. */
  pull: string
  /** Pulls $IMAGE for all architectures or for another one. */
  platforms?: string
  /** Pushes an image as $NAME:1.0.0. */
  push?: string
  /** Pushes an image based on $BASE as $NAME:2.0.0. Only the cache has the big layer of $BASE. */
  mount?: string
  /** Lists the tags of $NAME. */
  list?: string
  /** Deletes $NAME:1.0.0. Here $IMAGE is the same image by digest. */
  delete?: string
  login?: string
  logout?: string
  /** If one of these requires a login, the client cannot pull even a public image anonymously. */
  noAnonymousPull?: Login[]
  /** It also looks for signatures, so it cannot pull if one of the registries that may have them is down. */
  signatures?: true
  /** Deletes all that it pulled. */
  forget?: string
}

const debian = (name: string, packaged = name) => ({ program: name, debian: packaged })
const containerfile = 'cp $LAYER layer.tar; printf "FROM $ROUTER/$BASE\\nADD layer.tar /\\n" > Dockerfile'
const ctr = 'CONTAINERD_SNAPSHOTTER=native ctr images'
const ctrLogin = '--hosts-dir $HOSTS $(cat ~/login)'
const ctrForget = 'touch ~/login; ctr images ls -q | xargs -r ctr images rm --sync'
const quiet = '-q --tls-verify=false'
const cosign = '--allow-http-registry'
/** Without the public transparency log of signatures. */
const ownKeys = `${cosign} --private-infrastructure`

export const clients: Record<string, Client> = {
  docker: {
    from: debian('dockerd', 'docker.io'),
    version: 'docker version --format "{{.Client.Version}}, engine {{.Server.Version}}"',
    pull: 'docker pull $ROUTER/$IMAGE',
    platforms: 'docker pull --platform linux/arm64 $ROUTER/$IMAGE',
    push: 'docker import $LAYER $ROUTER/$NAME:1.0.0 && docker push $ROUTER/$NAME:1.0.0',
    mount: `${containerfile}; docker build -t $ROUTER/$NAME:2.0.0 . && docker push $ROUTER/$NAME:2.0.0`,
    // It asks /v2/ first, and without a login it gives up at a Basic challenge.
    noAnonymousPull: ['htpasswd'],
    login: 'docker login -u $LOGIN -p $PASSWORD $ROUTER',
    logout: 'docker logout $ROUTER',
    forget: 'docker image prune -af',
  },
  'containerd, `hosts.toml`': {
    from: debian('containerd'),
    everyWay: true,
    version: 'ctr --version',
    pull: `${ctr} pull ${ctrLogin} $ROUTER/$IMAGE`,
    platforms: `${ctr} pull ${ctrLogin} --all-platforms $ROUTER/$IMAGE`,
    push: `${ctr} import --no-unpack --all-platforms --base-name $ROUTER/$NAME $ARCHIVE && ${ctr} push ${ctrLogin} $ROUTER/$NAME:1.0.0`,
    mount: `${ctr} pull ${ctrLogin} $ROUTER/$BASE && ${ctr} import --no-unpack --base-name $ROUTER/$NAME $DERIVED && ${ctr} push ${ctrLogin} $ROUTER/$NAME:2.0.0`,
    login: 'echo "--user $LOGIN:$PASSWORD" > ~/login',
    logout: 'echo > ~/login',
    forget: ctrForget,
  },
  'containerd, a mirror (`?ns=`)': {
    from: debian('containerd'),
    everyWay: true,
    names: ['library/hello'],
    version: 'ctr --version',
    pull: `${ctr} pull ${ctrLogin} docker.io/$IMAGE`,
    platforms: `${ctr} pull ${ctrLogin} --all-platforms docker.io/$IMAGE`,
    forget: ctrForget,
  },
  podman: {
    from: debian('podman'),
    version: 'podman --version',
    pull: `podman pull ${quiet} $ROUTER/$IMAGE`,
    platforms: `podman pull ${quiet} --arch arm64 $ROUTER/$IMAGE`,
    push: `podman import -q $LAYER $ROUTER/$NAME:1.0.0 && podman push ${quiet} $ROUTER/$NAME:1.0.0`,
    mount: `${containerfile}; podman build ${quiet} -t $ROUTER/$NAME:2.0.0 . && podman push ${quiet} $ROUTER/$NAME:2.0.0`,
    list: 'podman search --tls-verify=false --list-tags $ROUTER/$NAME',
    login: 'podman login --tls-verify=false -u $LOGIN -p $PASSWORD $ROUTER',
    logout: 'podman logout $ROUTER',
    forget: 'podman rmi --all --force',
  },
  buildah: {
    from: debian('buildah'),
    version: 'buildah --version',
    pull: `buildah pull ${quiet} $ROUTER/$IMAGE`,
    platforms: `buildah manifest create $NAME && buildah manifest add --tls-verify=false --all $NAME docker://$ROUTER/$IMAGE && buildah manifest push ${quiet} --all $NAME docker://$ROUTER/$NAME:all`,
    push: `c=$(buildah from scratch) && buildah add -q $c $LAYER && buildah commit -q --rm $c $ROUTER/$NAME:1.0.0 && buildah push ${quiet} $ROUTER/$NAME:1.0.0`,
    mount: `c=$(buildah from ${quiet} $ROUTER/$BASE) && buildah add -q $c $LAYER && buildah commit -q --rm $c $ROUTER/$NAME:2.0.0 && buildah push ${quiet} $ROUTER/$NAME:2.0.0`,
    login: 'buildah login --tls-verify=false -u $LOGIN -p $PASSWORD $ROUTER',
    logout: 'buildah logout $ROUTER',
    forget: 'buildah rmi --all --force',
  },
  skopeo: {
    from: debian('skopeo'),
    everyWay: true,
    version: 'skopeo --version',
    pull: 'skopeo copy --src-tls-verify=false docker://$ROUTER/$IMAGE dir:out',
    platforms: 'skopeo copy --all --src-tls-verify=false docker://$ROUTER/$IMAGE dir:out',
    push: 'skopeo copy --all --dest-tls-verify=false oci:$LAYOUT:1.0.0 docker://$ROUTER/$NAME:1.0.0',
    // It offers to mount only blobs that it has read before.
    mount:
      'skopeo copy --src-tls-verify=false docker://$ROUTER/$BASE dir:out && skopeo copy --src-tls-verify=false --dest-tls-verify=false docker://$ROUTER/$BASE docker://$ROUTER/$NAME:2.0.0',
    list: 'skopeo list-tags --tls-verify=false docker://$ROUTER/$NAME',
    delete: 'skopeo delete --tls-verify=false docker://$ROUTER/$NAME:1.0.0',
    login: 'skopeo login --tls-verify=false -u $LOGIN -p $PASSWORD $ROUTER',
    logout: 'skopeo logout $ROUTER',
  },
  crane: {
    from: { go: cranePackage },
    pull: 'crane pull $ROUTER/$IMAGE out.tar',
    platforms: 'crane pull --format oci $ROUTER/$IMAGE out',
    push: 'crane push $LAYOUT $ROUTER/$NAME:1.0.0',
    mount: 'crane append -b $ROUTER/$BASE -f $LAYER -t $ROUTER/$NAME:2.0.0',
    list: 'crane ls $ROUTER/$NAME',
    delete: 'crane delete $ROUTER/$IMAGE',
    login: 'crane auth login -u $LOGIN -p $PASSWORD $ROUTER',
    logout: 'crane auth logout $ROUTER',
  },
  oras: {
    from: { go: 'oras.land/oras/cmd/oras@v1.3.6' },
    pull: 'oras cp --from-plain-http --to-oci-layout $ROUTER/$IMAGE out:1',
    platforms: 'oras cp --from-plain-http --to-oci-layout $ROUTER/$IMAGE out:1',
    push: 'oras cp --from-oci-layout --to-plain-http $LAYOUT:1.0.0 $ROUTER/$NAME:1.0.0',
    mount: 'oras cp --from-plain-http --to-plain-http $ROUTER/$BASE $ROUTER/$NAME:2.0.0',
    list: 'oras repo tags --plain-http $ROUTER/$NAME',
    delete: 'oras manifest delete --plain-http -f $ROUTER/$IMAGE',
    login: 'oras login --plain-http -u $LOGIN -p $PASSWORD $ROUTER',
    logout: 'oras logout $ROUTER',
  },
  regctl: {
    from: { go: 'github.com/regclient/regclient/cmd/regctl@v0.11.7' },
    pull: 'regctl image copy $ROUTER/$IMAGE ocidir://out:1',
    platforms: 'regctl image copy $ROUTER/$IMAGE ocidir://out:1',
    push: 'regctl image copy ocidir://$LAYOUT:1.0.0 $ROUTER/$NAME:1.0.0',
    mount: 'regctl image copy $ROUTER/$BASE $ROUTER/$NAME:2.0.0',
    list: 'regctl tag ls $ROUTER/$NAME',
    delete: 'regctl manifest delete $ROUTER/$IMAGE',
    login: 'regctl registry login -u $LOGIN -p $PASSWORD $ROUTER',
    logout: 'regctl registry logout $ROUTER',
    forget: 'regctl registry set --skip-check --tls disabled $ROUTER',
  },
  helm: {
    from: { go: helmPackage },
    names: ['charts/hello', 'team/charts/hello'],
    pull: 'helm pull --plain-http oci://$ROUTER/$IMAGE',
    push: 'mkdir c && printf "apiVersion: v2\\nname: $(basename $NAME)\\nversion: 1.0.0\\n" > c/Chart.yaml && helm package c && helm push --plain-http *.tgz oci://$ROUTER/$(dirname $NAME)',
    login: 'helm registry login --plain-http -u $LOGIN -p $PASSWORD $ROUTER',
    logout: 'helm registry logout $ROUTER',
  },
  cosign: {
    from: { go: 'github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5' },
    pull: `cosign save ${cosign} --dir out $ROUTER/$IMAGE`,
    platforms: `cosign save ${cosign} --dir out $ROUTER/$IMAGE`,
    push: `cosign save ${cosign} --dir out $ROUTER/library/hello:1.0.0 && cosign load ${cosign} --dir out $ROUTER/$NAME:1.0.0`,
    mount: `cosign copy ${cosign} $ROUTER/$BASE $ROUTER/$NAME:2.0.0`,
    signatures: true,
    noAnonymousPull: ['htpasswd', 'tokens'],
    login: 'cosign login -u $LOGIN -p $PASSWORD $ROUTER',
    logout: 'rm ~/config.json',
  },
}

/**
 * Ways to attach a referrer or a signature to $IMAGE and to find it again. $KEY is the name of the signing key, or part
 * of the artifact type. `checksLastOnly`: the client counts all signatures but verifies only the last one listed.
 */
export const attachments: Record<string, { by: string; attach: string; find: string; checksLastOnly?: true }> = {
  'cosign sign, verify, tree': {
    by: 'cosign',
    attach: `cosign sign -y --tlog-upload=false ${cosign} --key ~/$KEY.key $ROUTER/$IMAGE`,
    find: `cosign verify ${ownKeys} --key ~/$KEY.pub $ROUTER/$IMAGE && cosign tree ${cosign} $ROUTER/$IMAGE | grep Signatures`,
  },
  'the same with OCI 1.1 referrers': {
    by: 'cosign',
    checksLastOnly: true,
    attach: `COSIGN_EXPERIMENTAL=1 cosign sign -y --tlog-upload=false ${cosign} --registry-referrers-mode oci-1-1 --key ~/$KEY.key $ROUTER/$IMAGE`,
    find: `export COSIGN_EXPERIMENTAL=1; cosign verify ${ownKeys} --experimental-oci11 --key ~/$KEY.pub $ROUTER/$IMAGE && cosign tree ${cosign} --experimental-oci11 $ROUTER/$IMAGE | grep sig.v1`,
  },
  'oras attach, discover': {
    by: 'oras',
    attach: 'echo {} > sbom && oras attach --plain-http --artifact-type application/x-$KEY $ROUTER/$IMAGE sbom',
    find: 'oras discover --plain-http $ROUTER/$IMAGE | grep application/x-$KEY',
  },
  'regctl artifact put, list': {
    by: 'regctl',
    attach: 'echo {} | regctl artifact put --artifact-type application/x-$KEY --subject $ROUTER/$IMAGE',
    find: 'regctl artifact list $ROUTER/$IMAGE | grep application/x-$KEY',
  },
}

/**
 * Ways to set up nodes and clients so that $PUBLIC, an image name with its public registry, is pulled through the router. `setUp` writes
 * what the client needs; it runs in the same shell.
 */
export const mirrors: Record<string, { by: string; setUp: string; pull: string }> = {
  'containerd, `ghcr.io/hosts.toml`': {
    by: 'containerd, `hosts.toml`',
    setUp: hostsToml('ghcr.io', 'http://$ROUTER'),
    pull: `${ctr} pull --hosts-dir $PWD $PUBLIC`,
  },
  'containerd, `_default/hosts.toml`': {
    by: 'containerd, `hosts.toml`',
    setUp: hostsToml('_default', 'http://$ROUTER'),
    pull: `${ctr} pull --hosts-dir $PWD $PUBLIC`,
  },
  'containerd, `override_path`': {
    by: 'containerd, `hosts.toml`',
    setUp: hostsToml('ghcr.io', 'http://$ROUTER/v2/ghcr.io', 'override_path = true'),
    pull: `${ctr} pull --hosts-dir $PWD $PUBLIC`,
  },
  'podman, `prefix`': { by: 'podman', setUp: registriesConf(), pull: 'podman pull -q $PUBLIC' },
  'buildah, `prefix`': { by: 'buildah', setUp: registriesConf(), pull: 'buildah pull -q $PUBLIC' },
  'skopeo, `prefix`': {
    by: 'skopeo',
    setUp: registriesConf(),
    pull: 'skopeo --registries-conf registries.conf copy docker://$PUBLIC dir:out',
  },
  'crane, by name': { by: 'crane', setUp: '', pull: 'crane pull $ROUTER/$PUBLIC out.tar' },
  'docker, by name': { by: 'docker', setUp: '', pull: 'docker pull $ROUTER/$PUBLIC' },
}

/** containerd (its docs/hosts.md). */
function hostsToml(folder: string, address: string, more = ''): string {
  const lines = ['server = "http://127.0.0.1:1"', `[host."${address}"]`, 'capabilities = ["pull", "resolve"]', more]
  return `mkdir ${folder}\n${written(`${folder}/hosts.toml`, lines)}`
}

/** podman, buildah and skopeo (containers-registries.conf). */
function registriesConf(): string {
  const lines = ['[[registry]]', 'prefix = "ghcr.io"', 'location = "$ROUTER/ghcr.io"', 'insecure = true']
  return `${written('registries.conf', lines)}\nexport CONTAINERS_REGISTRIES_CONF=$PWD/registries.conf`
}

/** Writes a file. The shell's variables in it are replaced. */
function written(file: string, lines: string[]): string {
  return [`cat > ${file} <<END`, ...lines, 'END'].join('\n')
}
