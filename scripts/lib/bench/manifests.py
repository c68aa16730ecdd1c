"""The manifests of a devstack environment, as devstack applied them.

They are read back from a cluster that devstack made: of every object just the
fields that the field manager `devstack` owns, so that nothing of what the API
server or a controller filled in is among them.
"""

import ipaddress
import json

from .shell import run

MANAGER = "devstack"
COMPONENT = "dev.devstack.component"
# Applied before everything else, in this order.
FIRST = ["Namespace", "CustomResourceDefinition", "ServiceAccount", "Secret", "ConfigMap"]
WEBHOOKS = ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"]
POOLS = ["IPAddressPool", "L2Advertisement"]


def project(value, fields):
    """The part of `value` that a fieldsV1 tree names."""
    inner = {key: tree for key, tree in fields.items() if key != "."}
    if not inner:
        return value
    if isinstance(value, dict):
        return {key[2:]: project(value[key[2:]], tree) for key, tree in inner.items() if key[2:] in value}
    items = []
    trees = [(key.split(":", 1)[0], json.loads(key.split(":", 1)[1]), tree) for key, tree in inner.items()]
    # In the order of the list, which may matter: an environment variable refers to those before it.
    for item in value:
        for kind, wanted, tree in trees:
            if kind == "v" and item == wanted:
                items.append(item)
            elif kind == "k" and all(item.get(name) == part for name, part in wanted.items()):
                # The keys themselves are part of the item whether or not the tree repeats them.
                items.append({**wanted, **project(item, tree)})
    return items


def applied(item):
    """An object as devstack applied it; `None` where it did not."""
    for entry in item["metadata"].get("managedFields", []):
        if entry["manager"] == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            part = project(item, entry["fieldsV1"])
            meta = {"name": item["metadata"]["name"], **part.get("metadata", {})}
            if item["metadata"].get("namespace"):
                meta["namespace"] = item["metadata"]["namespace"]
            if item["kind"] == "Secret":
                # Applied as stringData, of which the server keeps only what it became.
                part["data"] = item.get("data", {})
            return {"apiVersion": item["apiVersion"], "kind": item["kind"], **part, "metadata": meta}
    return None


def read(kubectl, kubeconfig):
    """Every object that devstack applied, by component."""
    kube = [kubectl, "--kubeconfig", kubeconfig]
    kinds = run(*kube, "api-resources", "--verbs=list,create", "-o", "name").split()
    kinds = [kind for kind in kinds if not kind.startswith(("events", "pods", "endpoint", "controllerrevisions"))]
    found = run(*kube, "get", ",".join(kinds), "-A", "-l", COMPONENT, "-o", "json", "--show-managed-fields")
    components = {}
    for item in json.loads(found)["items"]:
        thing = applied(item)
        if thing is not None:
            components.setdefault(item["metadata"]["labels"][COMPONENT], []).append(thing)
    for things in components.values():
        things.sort(key=lambda thing: FIRST.index(thing["kind"]) if thing["kind"] in FIRST else len(FIRST))
    return components


def pool_of(subnet):
    """devstack's own choice of addresses at the end of a subnet."""
    network = ipaddress.ip_network(subnet)
    last = int(network.network_address) + network.num_addresses - 6
    count = min(50, network.num_addresses // 4)
    return f"{ipaddress.ip_address(last - count + 1)}-{ipaddress.ip_address(last)}"


def with_pool(things, subnet):
    """The same objects, giving away addresses of another network."""
    changed = []
    for thing in things:
        if thing["kind"] == "IPAddressPool":
            thing = {**thing, "spec": {**thing["spec"], "addresses": [pool_of(subnet)]}}
        changed.append(thing)
    return changed


def split(things, kinds):
    """Objects of these kinds, and the others."""
    return [thing for thing in things if thing["kind"] in kinds], [thing for thing in things if thing["kind"] not in kinds]


def listed(things):
    """One document for `kubectl apply -f -`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": things})


def named(things, kind, name):
    """Whether an object is among them."""
    return any(thing["kind"] == kind and thing["metadata"]["name"] == name for thing in things)
