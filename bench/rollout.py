"""``python -m bench rollout``: a rollout over a fleet of simulated nodes, and a bare DaemonSet's over the same nodes.

Both replace the server of every node, a tenth of them at a time, and end when each node has the new one, ready. Ours has a
canary wave, a benchmark on it, and both servers beside each other; the bare one deletes and starts. The nodes' kubelets are
simulated, so no image is pulled and no model is loaded: what is measured is the control plane. Once with a quarter of the
nodes, to tell what grows with the fleet and what with the waves.
"""

import asyncio
import copy
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.api import Api, Manifest
from bench.audit import by_resource, writes
from bench.figures import Figure, mb
from bench.place import (
    CLUSTER,
    ENVIRONMENT,
    drop_namespace,
    ensure_kinds,
    fresh_namespace,
    operator_aside,
    operator_command,
    simulated_nodes,
)
from bench.process import Process
from demo.steps import Kubectl

NAMESPACE = "slmops-bench-rollout"
NAME = "fleet"
AT_ONCE = "10%"
LIMIT = 1800.0
POLL = 0.2
HALT_SECONDS = 5.0
EDGE = f"/apis/slmops.dev/v1alpha1/namespaces/{NAMESPACE}/edgedeployments"
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"


@dataclass(frozen=True)
class Measured:
    """What one fleet came to."""

    nodes: int
    bare: float
    """Seconds of a bare DaemonSet's rollout."""
    ours: float
    cpu: float
    """Seconds of the operator during ours."""
    rss: int
    """The most bytes that the operator held."""
    writes: dict[str, int]
    status: int
    """Bytes of the status, at most."""
    halted: float
    """Seconds from a person's abort in the middle of a rollout to the last write that matters: the stable revision has all
    nodes again."""


def run(nodes: int) -> list[Figure]:
    """Measure a quarter of the fleet, then all of it."""
    kubectl = Kubectl(CLUSTER)
    ensure_kinds(kubectl)
    found = []
    with operator_aside(kubectl):
        for count in (nodes // 4, nodes):
            with simulated_nodes(count):
                found.append(asyncio.run(_run(kubectl, count)))
            print(found[-1], flush=True)
    return _figures(*found)


def _figures(small: Measured, large: Measured) -> list[Figure]:
    few, many = sum(small.writes.values()), sum(large.writes.values())
    return [
        Figure(f"rollout over {large.nodes} nodes", "at most 10 % longer than a bare DaemonSet's",
               f"{large.ours:.1f} against {large.bare:.1f} s: {large.ours / large.bare - 1:+.0%}",
               large.ours <= 1.1 * large.bare),
        Figure("the operator's writes", f"at most 10 % more than with {small.nodes} nodes", f"{many} against {few}",
               many <= 1.1 * few),
        Figure("bytes of the status, at most", f"at most 10 % more than with {small.nodes} nodes",
               f"{large.status} against {small.status}", large.status <= 1.1 * small.status),
        Figure("from an abort to the stable revision on all nodes' list", f"at most {HALT_SECONDS:.0f} s",
               f"{large.halted:.1f} s", large.halted <= HALT_SECONDS),
        Figure("operator's CPU time in a rollout", "",
               f"{large.cpu:.1f} s, {large.cpu / large.nodes * 1000:.1f} ms a node"),
        Figure("operator RSS", "", f"at most {mb(large.rss)} ({small.nodes} nodes: {mb(small.rss)})"),
    ]  # fmt: skip


async def _run(kubectl: Kubectl, nodes: int) -> Measured:
    async with Api(CLUSTER.kubeconfig) as api:
        await fresh_namespace(kubectl, api, NAMESPACE)
        try:
            with tempfile.TemporaryDirectory() as folder:
                command = operator_command(Path(folder), NAMESPACE, logLevel="warning")
                with Process("operator", command, ENVIRONMENT, Path(folder, "log")) as process:
                    return await _measure(api, process, nodes)
        finally:
            await drop_namespace(kubectl, api, NAMESPACE)


async def _measure(api: Api, process: Process, nodes: int) -> Measured:
    await api.create(EDGE, _deployment("1"))
    await _until(api, process, lambda s: s.get("phase") == "Ready" and _updated(s) == nodes)
    bare = await _bare(api, process, nodes)
    begun, since, cpu = time.monotonic(), time.time(), process.cpu()
    await api.merge(f"{EDGE}/{NAME}", {"spec": _deployment("2")["spec"]})
    most = await _until(api, process, lambda s: _promoted(s, "2") and _updated(s) == nodes)
    ours, used = time.monotonic() - begun, process.cpu() - cpu
    await asyncio.sleep(2)  # Events come behind the writes that they tell of
    made = by_resource(writes(CLUSTER.audit_log, NAMESPACE, ("slmops",), since))
    halted = await _halt(api, process, nodes)
    return Measured(nodes, bare, ours, used, process.memory()[1], made, most, halted)


async def _bare(api: Api, process: Process, nodes: int) -> float:
    """Seconds of a rollout of our own servers by a DaemonSet alone, behind a Service as ours are."""
    (live,) = (await api.get(SETS))["items"]
    pod = copy.deepcopy(live["spec"]["template"])
    pod["metadata"] = {"labels": {"app": "bare"}}
    pod["spec"].pop("readinessGates", None)
    spec = {"selector": {"matchLabels": {"app": "bare"}}, "template": pod,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": AT_ONCE}}}  # fmt: skip
    await api.create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bare"},
                                "spec": {"selector": {"app": "bare"}, "ports": [{"port": 8080}]}})  # fmt: skip
    await api.create(SETS, {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "bare"}, "spec": spec})
    await _rolled(api, process, nodes)
    begun = time.monotonic()
    pod["metadata"]["annotations"] = {"example.com/version": "2"}
    await api.merge(f"{SETS}/bare", {"spec": {"template": pod}})
    await _rolled(api, process, nodes)
    took = time.monotonic() - begun
    await api.delete(f"{SETS}/bare")
    await api.delete(f"{SERVICES}/bare")

    async def gone() -> bool:
        pods = await api.get(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3Dbare&limit=1")
        return not pods["items"]

    await process.until(gone, LIMIT)
    return took


async def _rolled(api: Api, process: Process, nodes: int) -> None:
    async def rolled() -> bool:
        found = await api.get(f"{SETS}/bare")
        status = found.get("status") or {}
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return seen and nodes == status.get("updatedNumberScheduled") == status.get("numberReady")

    await process.until(rolled, LIMIT, POLL)


async def _halt(api: Api, process: Process, nodes: int) -> float:
    """Abort a rollout when half of the nodes have the candidate."""
    await api.merge(f"{EDGE}/{NAME}", {"spec": _deployment("3")["spec"]})
    await _until(api, process, lambda s: bool(s.get("candidate")) and _updated(s) >= nodes // 2)
    revision = (await api.get(f"{EDGE}/{NAME}"))["status"]["candidate"]["revision"]
    begun = time.monotonic()
    await api.merge(f"{EDGE}/{NAME}", {"metadata": {"annotations": {"slmops.dev/abort": revision}}})

    async def back() -> bool:
        return all(_everywhere(found) for found in (await api.get(SETS))["items"] if _track(found) == "stable")

    await process.until(back, LIMIT, POLL)
    took = time.monotonic() - begun
    await _until(api, process, lambda s: s["phase"] == "Degraded" and s["pools"][0]["nodes"]["ready"] == nodes)
    return took


def _track(daemon_set: Manifest) -> str:
    return str(daemon_set["metadata"]["labels"].get("slmops.dev/track"))


def _everywhere(daemon_set: Manifest) -> bool:
    """Whether a DaemonSet is kept from no host name."""
    return "hostname" not in json.dumps(daemon_set["spec"]["template"]["spec"]["affinity"])


async def _until(api: Api, process: Process, done: Callable[[Manifest], Any]) -> int:
    """Wait until the status is so. Returns the most bytes that it had."""
    most = 0

    async def look() -> bool:
        nonlocal most
        status = (await api.get(f"{EDGE}/{NAME}")).get("status") or {}
        most = max(most, len(json.dumps(status, separators=(",", ":"))))
        if status and done(status):
            return True
        if status.get("phase") in ("Paused", "Degraded"):
            raise RuntimeError(f"the rollout came to nothing: {status['conditions']}")
        return False

    await process.until(look, LIMIT, POLL)
    return most


def _updated(status: Manifest) -> int:
    return int(status["pools"][0]["nodes"]["updated"])


def _promoted(status: Manifest, model: str) -> bool:
    images = (status.get("stable") or {}).get("images") or {}
    return status["phase"] == "Ready" and str(images.get("kwok")).endswith(model * 8)


def _deployment(digit: str) -> Manifest:
    """The fleet, with a model image of its own for each digit."""
    return {
        "apiVersion": "slmops.dev/v1alpha1",
        "kind": "EdgeDeployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "model": {"image": f"registry.example/slm/fleet@sha256:{digit * 64}"},
            "pools": [{
                "name": "kwok", "selector": {"matchLabels": {"type": "kwok"}},
                "tolerations": [{"key": "type", "operator": "Equal", "value": "kwok", "effect": "NoSchedule"}],
            }],
            "strategy": {"maxUnavailable": AT_ONCE},
            "benchmark": {"data": {"uri": f"oci://registry.example/slm/data@sha256:{'a' * 64}"}},
            "gates": [{"metric": "TokensPerSecond", "min": 1}, {"metric": "ErrorRate", "max": 0}],
        },
    }  # fmt: skip
