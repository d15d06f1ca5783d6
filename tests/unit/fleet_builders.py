"""Nodes, pods, DaemonSets, Jobs and benchmark reports as the operator sees them, each as small as a test needs it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from slmops import contract
from slmops.api.conditions import timestamp
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.plan import serving
from slmops.rollout.children import job_name
from slmops.rollout.fleet import Node, pool_nodes
from slmops.rollout.pods import SERVING
from slmops.rollout.revision import Revision, wanted
from slmops.settings import Settings
from slmops.state import (
    ANNOTATION_REPORT,
    LABEL_POOL,
    LABEL_REVISION,
    LABEL_ROLE,
    LABEL_TRACK,
    Manifest,
    Observed,
)
from tests.unit.copies import fresh

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = Settings()
DATA = {"uri": "oci://registry.example/slm/data:v1"}
GATES: list[Manifest] = [
    {"metric": "TokensPerSecond", "min": 20},
    {"metric": "TokensPerSecond", "maxRegression": "10%"},
    {"metric": "ErrorRate", "max": 0},
]


def at(minutes: float) -> str:
    """The time so many minutes from NOW."""
    return timestamp(NOW + timedelta(minutes=minutes))


def image(name: str) -> str:
    """A model image by digest."""
    return f"registry.example/slm/{name}@sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def manifest(model_image: str = "a", *, pools: Sequence[str | Manifest] = ("farms",), generation: int = 1,
             annotations: Mapping[str, str] | None = None, status: Mapping[str, Any] | None = None,
             **spec: Any) -> Manifest:  # fmt: skip
    """An EdgeDeployment as the API server has it; a pool that is only named selects the label ``pool`` by its name."""
    chosen = [
        {"name": pool, "selector": {"matchLabels": {"pool": pool}}} if isinstance(pool, str) else pool for pool in pools
    ]
    return {
        "apiVersion": "slmops.dev/v1alpha1",
        "kind": "EdgeDeployment",
        "metadata": {"name": "chat", "namespace": "edge-ai", "uid": "uid-chat", "generation": generation,
                     "annotations": dict(annotations or {})},
        "spec": {"model": {"image": image(model_image)}, "pools": chosen} | spec,
        "status": dict(status or {}),
    }  # fmt: skip


def deployment(model_image: str = "a", **changes: Any) -> EdgeDeployment:
    """The same, parsed."""
    return EdgeDeployment.model_validate(manifest(model_image, **changes))


def measured(model_image: str = "a", **changes: Any) -> EdgeDeployment:
    """One with a benchmark and gates."""
    return deployment(model_image, **{"benchmark": {"data": DATA}, "gates": GATES} | changes)


def revision(resource: EdgeDeployment, observed: Observed | None = None) -> Revision:
    """The revision that the spec asks for."""
    found = wanted(resource, observed or Observed(), SETTINGS)
    assert isinstance(found, Revision), found
    return found


def node(name: str, *, pool: str | None = "farms", hardware: str | None = None, ready: bool = True,
         hostname: str | None = "", since: float = -10_000, labels: Mapping[str, str] | None = None,
         cpu: str = "4", memory: str = "8Gi", **capacity: str) -> Manifest:  # fmt: skip
    """A node. ``since`` is when it became Ready or went away, in minutes from NOW; ``hostname=None`` leaves it out."""
    found = {"kubernetes.io/arch": "amd64"} | dict(labels or {})
    if hostname is not None:
        found["kubernetes.io/hostname"] = hostname or name
    if pool is not None:
        found["pool"] = pool
    if hardware is not None:
        found["slmops.dev/hardware-class"] = hardware
    condition = {"type": "Ready", "status": "True" if ready else "Unknown", "lastTransitionTime": at(since)}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": f"uid-{name}", "labels": found},
        "status": {"capacity": {"cpu": cpu, "memory": memory} | capacity, "nodeInfo": {"architecture": "amd64"},
                   "conditions": [{"type": "MemoryPressure", "status": "False"}, condition]},
    }  # fmt: skip


def live(child: Manifest, *, created: float = -5) -> Manifest:
    """A child as the API server has it after it was applied."""
    found = fresh(child)
    found["metadata"] |= {"uid": f"uid-{child['kind']}-{child['metadata']['name']}", "creationTimestamp": at(created)}
    if found["kind"] == "DaemonSet":
        found["spec"]["revisionHistoryLimit"] = 10
        found["spec"]["template"]["spec"] |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}
    return found


def servers(resource: EdgeDeployment, *, track: str = "stable", only: Sequence[str] | None = None,
            pool: str = "farms") -> list[Manifest]:  # fmt: skip
    """ConfigMap and DaemonSet of the revision that a resource asks for, live."""
    found = next(p for p in resource.spec.pools if p.name == pool)
    asked = revision(resource)
    made = serving.daemon_set(resource, found, asked, SETTINGS, track=track, only=only, gated=track == "candidate")
    return [live(serving.config_map(resource, found, asked)), live(made)]


def pod(daemon_set: Manifest, on: str, *, ready: bool = True, containers: bool | None = None, gate: bool | None = None,
        restarts: int = 0, ended: Manifest | None = None, created: float = -5, ip: str = "10.0.0.1",
        phase: str = "Running", bound: bool = True, deleting: bool = False,
        since: float | None = None) -> Manifest:  # fmt: skip
    """A pod of a DaemonSet on a node. ``containers`` defaults to ``ready``; ``gate`` opens the readiness gate."""
    spec: Manifest = {"nodeName": on} if bound else {"affinity": pinned(on)}
    spec["readinessGates"] = fresh(daemon_set["spec"]["template"]["spec"].get("readinessGates") or [])
    changed = at(created if since is None else since)
    states = {"ContainersReady": ready if containers is None else containers, "Ready": ready}
    if gate is not None:
        states[SERVING] = gate
    name = f"{daemon_set['metadata']['name']}-{on}"
    meta: Manifest = {
        "name": name, "namespace": "edge-ai", "uid": f"uid-{name}", "creationTimestamp": at(created),
        "labels": dict(daemon_set["spec"]["template"]["metadata"]["labels"]),
        "ownerReferences": [{"kind": "DaemonSet", "uid": daemon_set["metadata"]["uid"], "controller": True}],
    }  # fmt: skip
    if deleting:
        meta["deletionTimestamp"] = at(0)
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec,
        "status": {
            "phase": phase, "podIP": ip,
            "conditions": [{"type": t, "status": str(s), "lastTransitionTime": changed} for t, s in states.items()],
            "containerStatuses": [{"name": "run", "restartCount": restarts, "state": {"running": {}}, "lastState": {
                "terminated": ended or {"reason": "OOMKilled", "exitCode": 137}} if restarts or ended else {}}],
        },
    }  # fmt: skip


def pinned(on: str) -> Manifest:
    """How the DaemonSet controller ties a pod to a node before it is scheduled."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [on]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def job(resource: EdgeDeployment, role: str, on: Manifest, *, pool: str = "farms", state: str = "Running",
        report: contract.Report | None = None, created: float = -5, ended: float = -1,
        reason: str = "BackoffLimitExceeded") -> Manifest:  # fmt: skip
    """The pull or benchmark Job of the wanted revision for a node: Running, Complete or Failed."""
    asked = revision(resource).name
    name = job_name(resource, role, pool, asked, parsed(on))
    annotations = {ANNOTATION_REPORT: report.model_dump_json()} if report else {}
    status: Manifest = {}
    if state != "Running":
        status["conditions"] = [{"type": state, "status": "True", "reason": reason, "lastTransitionTime": at(ended)}]
    if state == "Complete":
        status["completionTime"] = at(ended)
    labels = {LABEL_ROLE: role, LABEL_POOL: pool, LABEL_REVISION: asked}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "spec": {}, "status": status,
        "metadata": {"name": name, "namespace": "edge-ai", "uid": f"uid-{name}", "labels": labels,
                     "annotations": annotations, "creationTimestamp": at(created)},
    }  # fmt: skip


def pulled(resource: EdgeDeployment, on: Manifest, **changes: Any) -> Manifest:
    """A pull Job that ended well."""
    done = contract.Report(outcome="Succeeded")
    return job(resource, "pull", on, **{"state": "Complete", "report": done} | changes)


def benched(resource: EdgeDeployment, on: Manifest, figures: contract.Report, **changes: Any) -> Manifest:
    """A benchmark that ended with these figures."""
    return job(resource, "bench", on, **{"state": "Complete", "report": figures} | changes)


def target(speeds: Sequence[float] = (30, 30, 30), **changes: Any) -> contract.TargetFigures:
    """What a benchmark saw of a server, by its tokens a second in each round."""
    rounds = tuple(
        contract.Round(time_to_first_token_seconds=0.1, tokens_per_second=speed, request_seconds=2.0)
        for speed in speeds
    )
    return contract.TargetFigures.model_validate({"rounds": rounds, "requests": 60, "errors": 0} | changes)


def figures(candidate: contract.TargetFigures | None = None, stable: contract.TargetFigures | None = None,
            statistics: contract.Statistics | None = None) -> contract.Report:  # fmt: skip
    """A benchmark's report; without statistics one of an older image."""
    found = {k: v for k, v in (("candidate", candidate), ("stable", stable)) if v is not None}
    return contract.Report(outcome="Succeeded", targets=found, statistics=statistics)


def paired(ratio: float, low: float, high: float, pairs: int = 60) -> contract.Paired:
    """How the candidate compares."""
    return contract.Paired(ratio=ratio, low=low, high=high, pairs=pairs)


def track(daemon_set: Manifest) -> str:
    """Stable, candidate or retired."""
    return str(daemon_set["metadata"]["labels"][LABEL_TRACK])


def hosts(daemon_set: Manifest) -> tuple[str, set[str]]:
    """What a DaemonSet's affinity says of host names: ``In`` or ``NotIn`` some, or nothing, which is ``Any``."""
    affinity = daemon_set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    named = [e for e in term["matchExpressions"] if e["key"] == "kubernetes.io/hostname"]
    if not named:
        return "Any", set()
    (named,) = named
    return named["operator"], set(named["values"])


def configuration(config_map: Manifest) -> Manifest:
    """What a ConfigMap tells the container."""
    return dict(json.loads(config_map["data"][contract.CONFIG_KEY]))


def parsed(found: Manifest, pool: str = "farms") -> Node:
    """A node as the rollout knows it."""
    labels = {"pool": found["metadata"]["labels"]["pool"]}
    (node,) = pool_nodes(Pool.model_validate({"name": pool, "selector": {"matchLabels": labels}}), [found])
    return node
