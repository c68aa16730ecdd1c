"""The two ways without devstack: by hand, and an expert's parallel script."""

import contextlib
import json
import os
import subprocess
import threading
import time
import urllib.request

from . import manifests
from .shell import Stop, run, succeeds, until

PORTS = (18080, 18443)
STORE_PORT = 19000


class Cluster:
    """A kind cluster of the bench's own, with the names that go with it."""

    def __init__(self, seed, name, image):
        self.seed, self.name, self.image = seed, name, image
        self.kubeconfig = seed.work / f"{name}.kubeconfig"
        self.env = {**os.environ, "KIND_EXPERIMENTAL_DOCKER_NETWORK": name, "KIND_EXPERIMENTAL_PROVIDER": "docker"}
        self.config = seed.config(name, PORTS)

    def command(self, *more):
        """The call that creates it."""
        words = [self.seed.kind, "create", "cluster", "--name", self.name, "--image", self.image]
        return [*words, "--config", str(self.config), "--kubeconfig", str(self.kubeconfig), *more]

    def kubectl(self, *words, stdin=None):
        """kubectl on it."""
        return run(self.seed.kubectl, "--kubeconfig", self.kubeconfig, *words, stdin=stdin)

    def tries(self, *words, stdin=None):
        """kubectl on it, as a question."""
        return succeeds(self.seed.kubectl, "--kubeconfig", self.kubeconfig, *words, stdin=stdin)

    def apply(self, things):
        """kubectl apply."""
        self.kubectl("apply", "-f", "-", stdin=manifests.listed(things))

    def apply_until(self, things):
        """kubectl apply, again and again while the server refuses."""
        if not things:
            return
        text = manifests.listed(things)
        until("kubectl apply", lambda: self.tries("apply", "-f", "-", stdin=text), pause=0.3)

    def subnet(self):
        """The subnet of its network (IPv4)."""
        configs = json.loads(run("docker", "network", "inspect", self.name))[0]["IPAM"]["Config"]
        return next(config["Subnet"] for config in configs if "." in config["Subnet"])

    def things(self, component):
        """A component's objects for this cluster."""
        return manifests.with_pool(self.seed.components[component], self.subnet())

    def upload(self):
        """Puts the content into the bucket, through a port-forward."""
        user, password = self.seed.secret("minio-root")
        words = [self.seed.kubectl, "--kubeconfig", str(self.kubeconfig), "-n", "minio", "port-forward", "pod/minio-0"]
        forward = subprocess.Popen([*words, f"{STORE_PORT}:9000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        bucket = f"http://127.0.0.1:{STORE_PORT}/site"
        signed = ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", f"{user}:{password}", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
        put = ["curl", "-sf", "-o", "/dev/null", "-m", "20", *signed]
        gif = [*put, "-T", str(self.seed.site), "-H", "Content-Type: image/gif", bucket + self.seed.url_path]
        # s3www's readiness asks for it: all content is there.
        marker = [*put, "-X", "PUT", "-H", "Content-Type: text/plain", "--data-binary", self.seed.sha256, bucket + "/.devstack/ready"]
        try:
            until("upload", lambda: succeeds(*gif) and succeeds(*marker), pause=0.2)
        finally:
            forward.terminate()
            forward.wait()

    def address(self):
        """The address that MetalLB gave to Traefik."""
        path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
        words = [self.seed.kubectl, "--kubeconfig", self.kubeconfig, "-n", "traefik", "get", "service", "traefik", "-o", path]
        return run(*words, check=False).strip()

    def answers(self):
        """Waits until the loopback URL and the LoadBalancer address both serve the content itself."""
        seed = self.seed
        loopback, name = sorted(seed.hosts, key=lambda host: not host.endswith(".localhost"))
        until("loopback URL", lambda: serves(f"http://127.0.0.1:{PORTS[0]}{seed.url_path}", loopback, seed.sha256))
        address = until("LoadBalancer address", self.address)
        until("LoadBalancer URL", lambda: serves(f"http://{address}{seed.url_path}", name, seed.sha256))

    def delete(self):
        """Takes it away."""
        run(self.seed.kind, "delete", "cluster", "--name", self.name, "--kubeconfig", self.kubeconfig, env=self.env)
        run("docker", "network", "rm", self.name, check=False)
        for path in (self.kubeconfig, self.config):
            path.unlink(missing_ok=True)


def serves(url, host, sha256):
    """Whether a URL answers 200 with the content."""
    import hashlib

    request = urllib.request.Request(url, headers={"Host": host})
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5) as answer:
            return answer.status == 200 and hashlib.sha256(answer.read()).hexdigest() == sha256
    except OSError:
        return False


@contextlib.contextmanager
def made(cluster):
    """A cluster that is gone afterwards, whatever happens."""
    try:
        yield cluster
    finally:
        cluster.delete()


def by_hand(seed, phases, after=None):
    """One command after the other, as documentation has it: gives the seconds until the URLs answer."""
    with made(Cluster(seed, "bench-hand", seed.node_image)) as cluster:
        began = time.monotonic()

        def phase(name):
            phases.append((name, time.monotonic() - began))

        run(*cluster.command("--wait", "120s"), env=cluster.env)
        phase("kind create --wait")
        for image in seed.images:
            run(seed.kind, "load", "docker-image", image, "--name", cluster.name)
        phase("kind load")
        # MetalLB's controller makes the memberlist secret itself.
        pools, metallb = manifests.split(cluster.things("metallb"), manifests.POOLS)
        metallb = [thing for thing in metallb if not (thing["kind"] == "Secret" and thing["metadata"]["name"] == "memberlist")]
        cluster.apply(metallb)
        space = "metallb-system"
        cluster.kubectl("-n", space, "rollout", "status", "deployment/controller", "daemonset/speaker", "--timeout=180s")
        cluster.apply_until(pools)
        phase("MetalLB")
        cluster.apply(cluster.things("traefik"))
        cluster.kubectl("-n", "traefik", "rollout", "status", "deployment/traefik", "--timeout=180s")
        phase("Traefik")
        cluster.apply(cluster.things("minio"))
        cluster.kubectl("-n", "minio", "rollout", "status", "statefulset/minio", "--timeout=180s")
        cluster.kubectl("-n", "minio", "wait", "--for=condition=complete", "job", "--all", "--timeout=180s")
        cluster.upload()
        phase("MinIO, bucket, content")
        cluster.apply(cluster.things("s3www"))
        cluster.kubectl("-n", "s3www", "rollout", "status", "deployment/s3www", "--timeout=180s")
        cluster.answers()
        phase("s3www, URL")
        seconds = time.monotonic() - began
        if after:
            after(cluster)
        return seconds


def bake(seed, image):
    """The node image with the workload images in it, as `kind build node-image` puts its own there: seconds."""
    name = "bench-bake"
    began = time.monotonic()
    run("docker", "rm", "-f", "-v", name, check=False)
    run("docker", "run", "-d", "--name", name, "--security-opt", "seccomp=unconfined", "--entrypoint", "sleep", seed.node_image, "infinity")
    try:
        run("docker", "exec", "-d", name, "containerd")
        until("containerd", lambda: succeeds("docker", "exec", name, "ctr", "version"))
        save = subprocess.Popen(["docker", "save", *seed.images], stdout=subprocess.PIPE)
        words = ["docker", "exec", "-i", name, "ctr", "-n", "k8s.io", "images", "import", "--all-platforms", "--no-unpack", "--digests", "-"]
        done = subprocess.run(words, stdin=save.stdout, capture_output=True, text=True, check=False)
        if save.wait() != 0 or done.returncode != 0:
            raise Stop(f"baking: {done.stderr}")
        run("docker", "exec", name, "pkill", "-x", "containerd", check=False)
        until("containerd to end", lambda: not succeeds("docker", "exec", name, "pgrep", "-x", "containerd"), seconds=20)
        run("docker", "commit", "--change", 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]', name, image)
    finally:
        run("docker", "rm", "-f", "-v", name, check=False)
    return time.monotonic() - began


def expert(seed, image):
    """Everything at once, on the baked node image: gives the seconds until the URLs answer."""
    with made(Cluster(seed, "bench-expert", image)) as cluster:
        began = time.monotonic()
        create = subprocess.Popen(
            cluster.command(), env=cluster.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        failed = []

        def admin():
            if create.poll() not in (None, 0):
                raise Stop(f"kind create: {create.stderr.read()}")
            node = f"{cluster.name}-control-plane"
            text = run("docker", "exec", node, "cat", "/etc/kubernetes/admin.conf", check=False)
            port = run("docker", "port", node, "6443", check=False).split(":")[-1].strip()
            if "client-key-data" not in text or not port:
                return False
            lines = [f"    server: https://127.0.0.1:{port}" if line.strip().startswith("server:") else line for line in text.splitlines()]
            # kind writes its own file at the end; this one is the script's.
            cluster.kubeconfig = seed.work / "expert-admin.kubeconfig"
            cluster.kubeconfig.write_text("\n".join(lines) + "\n")
            return cluster.tries("get", "--raw", "/readyz") and cluster.tries("get", "namespace", "kube-system")

        until("API server", admin)

        def guarded(work):
            def inner():
                try:
                    work()
                except Exception as error:  # told by the main thread
                    failed.append(error)

            return inner

        def metallb():
            webhooks, rest = manifests.split(cluster.things("metallb"), manifests.WEBHOOKS)
            pools, rest = manifests.split(rest, manifests.POOLS)
            cluster.apply_until(rest)
            # A pool is refused while its webhook is there and the controller is not.
            cluster.apply_until(pools)
            cluster.apply_until(webhooks)

        def store():
            cluster.apply_until(cluster.things("minio"))
            until("MinIO", lambda: cluster.tries("-n", "minio", "get", "pod/minio-0"))
            cluster.kubectl("-n", "minio", "wait", "--for=condition=Ready", "pod/minio-0", "--timeout=180s")
            cluster.upload()

        works = [
            metallb,
            store,
            lambda: cluster.apply_until(cluster.things("traefik")),
            lambda: cluster.apply_until(cluster.things("s3www")),
        ]
        threads = [threading.Thread(target=guarded(work)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        cluster.answers()
        seconds = time.monotonic() - began
        if create.wait() != 0:
            raise Stop(f"kind create: {create.stderr.read()}")
        return seconds
