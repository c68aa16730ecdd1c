"""What all three ways share: images, manifests, kind, content. Taken once from an environment that devstack made."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from . import manifests
from .shell import Stop, high_water, run, say

ENVIRONMENT = "bench"
HOME = "DEVSTACK_HOME"


class Devstack:
    """The devstack that is measured, with state of its own."""

    def __init__(self, binary, work):
        self.binary, self.work = binary, work
        self.home = work / "home"
        self.hosts = work / "hosts"
        self.kubeconfig = work / "user-kubeconfig"
        self.log = work / "devstack.log"
        self.hosts.write_text("127.0.0.1 localhost\n")

    def env(self, **more):
        """Its environment variables: neither the user's state, nor kubeconfig, nor hosts file is touched."""
        own = {HOME: str(self.home), "DEVSTACK_HOSTS_FILE": str(self.hosts), "KUBECONFIG": str(self.kubeconfig)}
        return {**os.environ, **own, **more}

    def up(self, nodes, **more):
        """Runs `devstack up`: seconds, its result, its peak memory in KiB."""
        command = [self.binary, "up", "s3www", "--env", ENVIRONMENT, "--nodes", str(nodes), "--yes", "-o", "json"]
        out = self.work / "up.json"
        with out.open("w") as stdout, self.log.open("a") as stderr:
            began = time.monotonic()
            process = subprocess.Popen(command, env=self.env(**more), stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL)
            peak = high_water(process)
            seconds = time.monotonic() - began
        lines = [json.loads(line) for line in out.read_text().splitlines() if line.startswith("{")]
        results = [line for line in lines if line.get("type") == "result"]
        if process.returncode != 0 or not results:
            raise Stop(f"devstack up: exit {process.returncode}\n" + "\n".join(out.read_text().splitlines()[-4:]))
        if not results[-1]["endpoints"] or not all(endpoint["ok"] for endpoint in results[-1]["endpoints"]):
            raise Stop(f"devstack up has not proven its endpoints: {results[-1]}")
        return seconds, results[-1], peak

    def down(self):
        """Runs `devstack down`: seconds."""
        began = time.monotonic()
        run(self.binary, "down", "--env", ENVIRONMENT, "--yes", "-o", "json", env=self.env())
        return time.monotonic() - began

    def directory(self):
        """The directory of the environment."""
        return self.home / "environments" / ENVIRONMENT


class Seed:
    """Images, manifests, kind, content."""

    def __init__(self, devstack, work, site):
        self.work = work
        state = devstack.directory()
        choices = json.loads((state / "choices.json").read_text())
        self.node_image = next(choice["reference"] for choice in choices if choice["role"] == "node")
        self.images = sorted({choice["reference"] for choice in choices if choice["role"] != "node"})
        self.kind_config = json.loads((state / "kind.json").read_text())
        self.kind = tool("kind")
        self.kubectl = tool("kubectl")
        self.components = manifests.read(self.kubectl, state / "kubeconfig")
        missing = {"metallb", "traefik", "minio", "s3www"} - set(self.components)
        if missing:
            raise Stop(f"no objects of {', '.join(sorted(missing))} in the cluster that devstack made")
        self.site = site
        self.sha256 = hashlib.sha256(site.read_bytes()).hexdigest()
        self.hosts = [thing["spec"]["rules"][0]["host"] for thing in self.components["s3www"] if thing["kind"] == "Ingress"]
        self.images_into_engine(devstack)

    def path(self, endpoints):
        """Remembers where the content is, below the site's URL."""
        url = next(endpoint["url"] for endpoint in endpoints if ".localhost" in endpoint["url"])
        self.url_path = "/" + url.split("/", 3)[3]
        if self.url_path == "/":
            self.url_path = "/" + self.site.name

    def images_into_engine(self, devstack):
        """`kind load docker-image` takes images from the engine, so they are put there."""

        def missing():
            return [image for image in self.images if not run("docker", "images", "-q", image).strip()]

        for image in missing():
            if not image.startswith("devstack.local/"):
                run("docker", "pull", image)
        if missing():
            say("workload images, from devstack's store into the engine")
            run(devstack.binary, "image", "build", "--load", "--yes", env=devstack.env(), timeout=3600)
        if missing():
            raise Stop(f"not in the engine: {', '.join(missing())}")

    def config(self, name, ports):
        """A kind configuration as people write it, for the same nodes and for what this machine cannot do.

        It is devstack's own without what devstack hastens the start with: its patches of the control plane's
        configuration, its pod network instead of kind's, its directory of image layers.
        """
        config = json.loads(json.dumps(self.kind_config))
        config["name"] = name
        del config["networking"]["disableDefaultCNI"]
        config["kubeadmConfigPatches"] = [patch for patch in config["kubeadmConfigPatches"] if "ClusterConfiguration" not in patch]
        for node in config["nodes"]:
            node.pop("extraMounts", None)
        for mapping, port in zip(config["nodes"][0]["extraPortMappings"], ports):
            mapping["hostPort"] = port
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(config))
        return path

    def secret(self, name):
        """User name and password of a Secret."""
        import base64

        for thing in self.components["minio"]:
            if thing["kind"] == "Secret" and thing["metadata"]["name"] == name:
                data = thing.get("data", {})
                return [base64.b64decode(data[key]).decode() for key in ("username", "password")]
        raise Stop(f"no Secret {name}")


def tool(name):
    """A program on PATH, else the one that devstack built."""
    found = shutil.which(name)
    if found:
        return found
    cache = Path(os.environ.get("DEVSTACK_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "devstack")
    built = [path for path in sorted(cache.glob(f"builds/*/**/{name}"), key=lambda path: path.stat().st_mtime) if os.access(path, os.X_OK)]
    if not built:
        raise Stop(f"{name} is neither on PATH nor among devstack's builds")
    return str(built[-1])
