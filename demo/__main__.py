"""``make demo``: from an empty machine to a model that answers on edge nodes, with what happens said as it happens."""

import json
import sys
import time
import urllib.request
from typing import Any

from demo.steps import EXAMPLES, NAMESPACE, Kubectl, build_images, condition, ensure_teacher, install, wait_for
from tests.cluster import Cluster
from tests.cluster.shell import Failed

CHAIN = (
    ("quantizedmodel", "teacher", "Succeeded"),
    ("edgedeployment", "teacher", "Ready"),
    ("distillation", "farm-assistant", "Succeeded"),
    ("finetune", "farm-irrigation", "Succeeded"),
    ("quantizedmodel", "farm-irrigation", "Succeeded"),
    ("edgedeployment", "farms", "Ready"),
)
QUESTION = "please give greenhouse 3 water from the drip line for 20 minutes at 06:30"
LIMIT_SECONDS = 45 * 60
_last = ""


def tell(text: str) -> None:
    """A line, unless it says what the last one said."""
    global _last
    if text != _last:
        print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)
    _last = text


def main() -> int:
    """The demo."""
    begun = time.monotonic()
    cluster = Cluster()
    try:
        cluster.up()
        images = build_images(cluster.registry)
        kubectl = Kubectl(cluster)
        tell("installing the chart with helm")
        install(kubectl, images, cluster.registry)
        tell("data sets and teacher")
        ensure_teacher(kubectl, images, cluster.registry, tell)
        for file in sorted(EXAMPLES.glob("*.yaml")):
            kubectl("apply", "-f", file)
        retry_failed(kubectl)
        follow(kubectl, begun + LIMIT_SECONDS)
        summary(kubectl, cluster, time.monotonic() - begun)
    except (Failed, RuntimeError, AssertionError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def retry_failed(kubectl: Kubectl) -> None:
    """What an earlier demo left behind as failed is tried again, as a user would."""
    for kind, name, type in CHAIN:
        if condition(kubectl.get(kind, name), type).get("status") == "False":
            tell(f"{kind}/{name} failed in an earlier run: trying again")
            kubectl("annotate", kind, name, "-n", NAMESPACE, f"slmops.dev/retry={time.time():.0f}", "--overwrite")
            wait_for(
                f"another try of {kind}/{name}",
                lambda of=(kind, name, type): condition(kubectl.get(*of[:2]), of[2]).get("status") != "False",
                60,
            )


def follow(kubectl: Kubectl, deadline: float) -> None:
    """Say what happens until the chain is done."""
    for kind, name, type in CHAIN:
        while True:
            manifest = kubectl.get(kind, name)
            status = (manifest or {}).get("status") or {}
            found = condition(manifest, type)
            if found.get("status") == "True" and status.get("observedGeneration"):
                tell(f"{kind}/{name}: {status.get('phase')}")
                break
            if found.get("status") == "False" and type == "Succeeded":
                raise RuntimeError(f"{kind}/{name} failed: {found['reason']}: {found['message']}")
            if status.get("phase") == "Degraded" and (status.get("lastOutcome") or {}).get("outcome") == "RolledBack":
                raise RuntimeError(f"{kind}/{name} was rolled back: {status['lastOutcome'].get('message')}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{kind}/{name} did not end in time: {json.dumps(status)[:1500]}")
            tell(f"{kind}/{name}: {_stage(status)}")
            time.sleep(2)


def _stage(status: dict[str, Any]) -> str:
    progress = status.get("progress") or {}
    parts = [status.get("phase") or "Pending"]
    if progress.get("percent") is not None:
        parts.append(f"{progress['stage']} {progress['percent']}%")
    if progress.get("eta"):
        parts.append(f"{progress['eta']} to go")
    if status.get("wave"):
        parts.append(f"wave {status['wave']['name']}")
    if status.get("activity"):
        parts.append(status["activity"])
    return ", ".join(parts)


def summary(kubectl: Kubectl, cluster: Cluster, seconds: float) -> None:
    """What was made, and how to look further."""
    student = kubectl.get("distillation", "farm-assistant") or {}
    tuned = kubectl.get("finetune", "farm-irrigation") or {}
    packed = kubectl.get("quantizedmodel", "farm-irrigation") or {}
    edge = kubectl.get("edgedeployment", "farms") or {}
    print(f"\nDone in {seconds / 60:.1f} minutes.\n")
    figures = student["status"]["evaluation"]
    print(f"  student      {_percent(figures, 'model')} exact match, teacher {_percent(figures, 'teacher')}, "
          f"untrained {_percent(figures, 'baseline')}; {student['status']['artifact']['size']}")  # fmt: skip
    figures = tuned["status"]["evaluation"]
    print(f"  fine-tuned   {_percent(figures, 'model')} on the new task, before {_percent(figures, 'baseline')}; "
          f"adapter {tuned['status']['adapter']['size']}")  # fmt: skip
    for variant in packed["status"]["variants"]:
        print(f"  {variant['name']:12} {_percent(variant['evaluation'], 'model')} exact match, {variant['size']}")
    for pool in edge["status"]["pools"]:
        for found in pool["classes"]:
            shown = found["figures"].get("candidate", {})
            print(f"  {found['node']:12} {found['name']}: {found['verdict']}, {shown.get('TokensPerSecond', 0):.0f} "
                  f"tokens/s, first token {1000 * shown.get('TimeToFirstToken', 0):.1f} ms")  # fmt: skip
    print("\nFrom the nodes back to the data, each link a digest:")
    print(f"  nodes        {edge['status']['stable']['images']['farms']}")
    print(f"  model image  from {packed['status']['inputs'].get('model')}")
    print(
        f"  fine-tune    from {tuned['status']['inputs'].get('base')}\n               and  {tuned['status']['inputs'].get('train')}"
    )
    print(f"  student      from {student['status']['inputs'].get('train')}")
    address = cluster.node("edge1").address
    print(f"\nA chat with the model on edge1 ({address}):\n  > {QUESTION}\n  < {chat(f'http://{address}:30080')}")
    print(f"""
Look further:
  export KUBECONFIG={cluster.kubeconfig}
  kubectl get slm -n {NAMESPACE}
  kubectl describe edgedeployment farms -n {NAMESPACE}
  curl http://{address}:30080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "farm-irrigation", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
  make cluster-down""")


def _percent(figures: dict[str, Any], who: str) -> str:
    value = (figures.get(who) or {}).get("ExactMatch")
    return "not measured" if value is None else f"{value:.1%}"


def chat(url: str) -> str:
    """One question to a node."""
    body = {"model": "farm-irrigation", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


if __name__ == "__main__":
    sys.exit(main())
