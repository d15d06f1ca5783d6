"""What the demo has made, told from the cluster and the registry alone: figures, lineage, and where to look further."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from demo.steps import NAMESPACE, Kubectl, Manifest, ask
from slmkit.lineage import made_of
from slmkit.registry import Registry
from slmkit.run import RunFailed
from slmops import contract
from slmops.figures import duration

QUESTION = "please give greenhouse 3 water from the drip line for 20 minutes at 06:30"
NODE_PORT = 30080
ROW = "  {:34} {:>7}  {}"


def summary(kubectl: Kubectl, seconds: float) -> None:
    """Print it."""
    print(f"\nDone in {duration(seconds)}. What was made, and how long its Jobs took:\n")
    for row in figures(kubectl):
        print(row)
    print("\nFrom the edge nodes back to the teacher's data, each link a digest:\n")
    for line in lineage(kubectl):
        print(f"  {line}")
    node, address = edge_node(kubectl)
    url = f"http://{address}:{NODE_PORT}"
    print(f"\nA chat with the model on {node}:\n\n  > {QUESTION}\n  < {answer(url)}")
    print(f"""
Look further:

  export KUBECONFIG={kubectl.cluster.kubeconfig} PATH={kubectl.cluster.bin("kubectl").parent}:$PATH
  kubectl get slm -n {NAMESPACE}
  kubectl describe edgedeployment farms -n {NAMESPACE}
  kubectl explain edgedeployment.spec.strategy.waves
  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "farm-irrigation", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
  make cluster-down""")


def figures(kubectl: Kubectl) -> Iterator[str]:
    """A row for each resource and for each thing that was measured of it."""
    student = kubectl.get("distillation", "farm-assistant") or {}
    status = student["status"]
    yield ROW.format("Distillation farm-assistant", took(kubectl, student), f"{status['artifact']['size']}, exact match "
                     f"{_match(status, 'model')}; teacher {_match(status, 'teacher')}, untrained "
                     f"{_match(status, 'baseline')}; {_kept(status)} of the accuracy kept")  # fmt: skip
    tuned = kubectl.get("finetune", "farm-irrigation") or {}
    status = tuned["status"]
    yield ROW.format("FineTune farm-irrigation", took(kubectl, tuned), f"adapter {status['adapter']['size']}, exact "
                     f"match on the new task {_match(status, 'model')}; before {_match(status, 'baseline')}")  # fmt: skip
    packed = kubectl.get("quantizedmodel", "farm-irrigation") or {}
    yield ROW.format("QuantizedModel farm-irrigation", took(kubectl, packed), f"{packed['status']['ready']} variants")
    for variant in packed["status"]["variants"]:
        yield ROW.format(f"  {variant['name']}", "", f"{variant['size']}, exact match {_match(variant, 'model')}, "
                         f"{_kept(variant)} of the accuracy kept")  # fmt: skip
    edge = kubectl.get("edgedeployment", "farms") or {}
    (pool,) = edge["status"]["pools"]
    yield ROW.format("EdgeDeployment farms", took(kubectl, edge), f"{pool['nodes']['ready']} nodes serve revision "
                     f"{edge['status']['stable']['revision']}")  # fmt: skip
    for found in pool["classes"]:
        # What was promoted before, and comes back, is not measured again.
        shown = found.get("figures", {}).get("candidate")
        told = (f": {shown['TokensPerSecond']:.0f} tokens/s, first token {1000 * shown['TimeToFirstToken']:.1f} ms"
                if shown else "")  # fmt: skip
        yield ROW.format(f"  {found.get('node', 'any node')} ({found['name']})", "", f"{found['verdict']}{told}")


def took(kubectl: Kubectl, resource: Manifest) -> str:
    """How long a resource's Jobs ran, taken together."""
    labels = f"slmops.dev/kind={resource['kind']},slmops.dev/name={resource['metadata']['name']}"
    total = 0.0
    for job in kubectl.items("jobs", "-l", labels):
        status = job.get("status") or {}
        if "startTime" in status and "completionTime" in status:
            begun, ended = (datetime.fromisoformat(status[key]) for key in ("startTime", "completionTime"))
            total += (ended - begun).total_seconds()
    return duration(total)


def lineage(kubectl: Kubectl) -> Iterator[str]:
    """A tree from what the nodes serve down to the data, as the registry has it."""
    registry = Registry(contract.Registry(plain_http=kubectl.cluster.plain_http))
    edge = kubectl.get("edgedeployment", "farms") or {}
    served = kubectl.get("edgedeployment", "teacher") or {}
    runtime = served.get("spec", {}).get("runtime", {}).get("port", 8080)
    # A teacher that is an endpoint has an address and no digest; this one is served by a resource that has.
    teacher = {f"http://teacher.{NAMESPACE}.svc:{runtime}/v1 teacher": served["status"]["stable"]["images"]["gpu"]}
    (image,) = set(edge["status"]["stable"]["images"].values())
    yield f"edge nodes: {_short(image)}"
    yield from _inputs(registry, image, "", teacher, set())


def _inputs(registry: Registry, reference: str, indent: str, known: dict[str, str], seen: set[str]) -> Iterator[str]:
    try:
        found = made_of(registry, reference)
    except RunFailed:
        return  # not in this registry: the tree ends here
    inputs: dict[str, str] = {}
    for role, uri in sorted(found.items()):
        if uri not in inputs.values():
            inputs[role] = uri
    for number, (role, uri) in enumerate(inputs.items(), 1):
        last = number == len(inputs)
        behind = known.get(uri, "")
        told = f"{uri}, served from {_short(behind)}" if behind else _short(uri)
        again = uri in seen
        yield f"{indent}{'└─' if last else '├─'} {role}: {told}{' (above)' if again else ''}"
        seen.add(uri)
        if not again:
            deeper = indent + ("   " if last else "│  ")
            yield from _inputs(registry, behind or uri.removeprefix("oci://"), deeper, known, seen)


def _short(reference: str) -> str:
    """Repository and the beginning of the digest."""
    name, at, digest = reference.removeprefix("oci://").partition("@")
    return f"{name.partition('/')[2] or name}{at}{digest[:19]}"


def edge_node(kubectl: Kubectl) -> tuple[str, str]:
    """Name and address of a node that serves the model."""
    node = kubectl.items("nodes", "-l", "pool=farms")[0]
    addresses = {a["type"]: a["address"] for a in node["status"]["addresses"]}
    return node["metadata"]["name"], addresses.get("InternalIP") or addresses["Hostname"]


def answer(url: str) -> str:
    """What the node says, or why it could not be asked: nodes of a cluster elsewhere are not always within reach."""
    try:
        return chat(url)
    except OSError as error:
        return f"(no answer: {error}; ask from where the node's port {NODE_PORT} can be reached)"


def chat(url: str) -> str:
    """One question to a node."""
    with ask(url, "farm-irrigation", QUESTION) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def _match(status: dict[str, Any], who: str) -> str:
    return _percent((status["evaluation"].get(who) or {}).get("ExactMatch"))


def _kept(status: dict[str, Any]) -> str:
    """With its 95 % interval."""
    text = _percent(status["evaluation"].get("comparison", {}).get("AccuracyRetained"))
    sure = (status.get("intervals") or {}).get("comparison", {}).get("AccuracyRetained")
    return f"{text} ({_percent(sure[0])} to {_percent(sure[1])})" if sure else text


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"
