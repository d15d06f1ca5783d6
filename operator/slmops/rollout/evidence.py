"""What a verdict rests on, in one document: what was on trial, on which nodes, what was measured, what was asked for, and
when. It is made from what the benchmarks left behind, while that is there."""

from typing import Any

from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.children import job_name
from slmops.rollout.people import APPROVE, PROMOTE
from slmops.rollout.rollout import Rollout
from slmops.state import Manifest, Observed, digest8

EVIDENCE = "evidence"
"""Role of the Job that publishes it."""
JUDGED = ("Promoted", "FastPromoted", "RolledBack", "Aborted")
MOST = 200
"""Nodes whose figures are in the document: a Job's configuration holds 1 MiB, and a node's figures are at most 4 KiB."""


def evidence_job(resource: EdgeDeployment) -> str | None:
    """Name of the Job that publishes the evidence of the last verdict; None where none is to be."""
    outcome = resource.status.last_outcome
    if resource.spec.evidence is None or outcome is None or outcome.evidence or not outcome.images:
        return None
    if outcome.outcome not in JUDGED:
        return None
    return f"{resource.metadata.name}-{EVIDENCE}-{digest8([outcome.revision, outcome.outcome, outcome.at])}"


def document(resource: EdgeDeployment, observed: Observed, rollout: Rollout) -> dict[str, Any]:
    """The evidence of the last verdict."""
    status, spec, outcome = resource.status, resource.spec, resource.status.last_outcome
    assert outcome is not None
    said = resource.metadata.annotations
    return {
        "deployment": {
            "namespace": resource.metadata.namespace, "name": resource.metadata.name, "uid": resource.metadata.uid,
            "generation": resource.metadata.generation,
        },
        "outcome": outcome.dump(),
        "stable": status.stable.dump() if status.stable is not None else None,
        "asked": {
            "gates": [gate.dump() for gate in spec.gates],
            "benchmark": spec.benchmark.dump() if spec.benchmark is not None else None,
            "strategy": spec.strategy.dump(),
        },
        "said": {name: said[name] for name in (APPROVE, PROMOTE) if name in said},
        "nodes": _nodes(resource, observed, rollout, outcome.revision),
    }  # fmt: skip


def _nodes(resource: EdgeDeployment, observed: Observed, rollout: Rollout, revision: str) -> list[dict[str, Any]]:
    fingerprints = {node["metadata"]["name"]: _fingerprint(node) for node in observed.nodes}
    found: list[dict[str, Any]] = []
    for pool in rollout.pools:
        for node in pool.nodes:
            seen = rollout.benches.of(pool.name, revision, node)
            if seen is None or seen.report is None or len(found) == MOST:
                continue
            job = observed.child("Job", job_name(resource, "bench", pool.name, revision, node)) or {}
            found.append({
                "pool": pool.name, "node": node.name, "class": node.hardware,
                "fingerprint": fingerprints.get(node.name, {}),
                "began": job["metadata"].get("creationTimestamp"), "ended": (job.get("status") or {}).get("completionTime"),
                "verdict": seen.verdict, "gates": [gate.dump() for gate in seen.gates],
                "measured": seen.report.model_dump(mode="json", include={"targets", "statistics", "inputs"}),
            })  # fmt: skip
    return found


def _fingerprint(node: Manifest) -> dict[str, Any]:
    """What the node is: processors, memory, accelerators, system."""
    status = node.get("status") or {}
    return {"capacity": status.get("capacity") or {}, "system": status.get("nodeInfo") or {}}
