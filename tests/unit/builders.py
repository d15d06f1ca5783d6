"""What the tests of the batch kinds are made of: resources, Jobs, pods and reports that look like those of a cluster."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from slmops.api.distillation import Distillation
from slmops.api.finetune import FineTune
from slmops.api.quantizedmodel import QuantizedModel
from slmops.api.resource import Resource
from slmops.contract import Artifact, Figures, Report
from slmops.settings import Settings
from slmops.state import Manifest, Observed, Plan
from tests.unit.copies import fresh

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 3, 1, 13, 0, tzinfo=UTC)
SETTINGS = Settings()
NAMESPACE = "farm"
DIGEST = "sha256:" + "ab" * 32
DATA = {"uri": "oci://registry.example/slm/data:v1"}
OUTPUT = {"repository": "registry.example/slm/out"}
UNREADABLE = ("abc", "never", "2026-03-01", "0000-01-01T00:00:00Z", "2026-13-01T00:00:00Z")
"""Texts where a time should stand; the year 0 and other oddities come through the API server."""
SPECS: dict[str, dict[str, Any]] = {
    "Distillation": {
        "teacher": {"endpoint": {"url": "http://teacher:8080/v1", "model": "big"}},
        "student": {"architecture": {}},
        "data": {"train": DATA},
        "output": OUTPUT,
    },
    "FineTune": {"base": {"uri": "oci://registry.example/slm/base:v1"}, "data": {"train": DATA}, "output": OUTPUT},
    "QuantizedModel": {"model": {"uri": "oci://registry.example/slm/base:v1"}, "output": OUTPUT},
}
"""The shortest manifests that are any use."""


def body(kind: str, spec: dict[str, Any] | None = None, *, name: str = "farm-tuned", **fields: Any) -> Manifest:
    """A resource as the API server sends it. ``spec`` replaces fields of the shortest manifest; None takes one away."""
    merged = {k: v for k, v in {**fresh(SPECS[kind]), **(spec or {})}.items() if v is not None}
    metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-of-{name}", "generation": 1}
    return {
        "apiVersion": "slmops.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata | fields.pop("metadata", {}),
        "spec": merged,
    } | fields


def distillation(spec: dict[str, Any] | None = None, **fields: Any) -> Distillation:
    """A Distillation."""
    return Distillation.model_validate(body("Distillation", spec, **fields))


def finetune(spec: dict[str, Any] | None = None, **fields: Any) -> FineTune:
    """A FineTune."""
    return FineTune.model_validate(body("FineTune", spec, **fields))


def quantizedmodel(spec: dict[str, Any] | None = None, **fields: Any) -> QuantizedModel:
    """A QuantizedModel."""
    return QuantizedModel.model_validate(body("QuantizedModel", spec, **fields))


def reference(kind: str, name: str, status: dict[str, Any] | None = None, **spec: Any) -> Manifest:
    """Another resource that has succeeded and published, unless ``status`` says otherwise."""
    good = {
        "observedGeneration": 1,
        "artifact": {"reference": f"registry.example/slm/{name}@{DIGEST}", "size": "1Mi"},
        "conditions": [{"type": "Succeeded", "status": "True", "reason": "Completed"}],
    }
    return body(kind, spec, name=name, status=good | (status or {}))


# --- what a Job comes to -------------------------------------------------------------------------------------------


def artifact(name: str = "model") -> Artifact:
    """Something published."""
    return Artifact(reference=f"registry.example/slm/{name}@{DIGEST}", size=3 * 2**20)


def report(*made: str, **fields: Any) -> Report:
    """A good report that published ``made``."""
    return Report(outcome="Succeeded", artifacts={name: artifact(name) for name in made}, **fields)


def figures(exact_match: float | None = 0.9, **fields: Any) -> Figures:
    """What was measured of a model."""
    return Figures(exact_match=exact_match, **fields)


def failure(reason: str, message: str = "") -> str:
    """A bad report, as it stands in a termination message."""
    return json.dumps({"outcome": "Failed", "reason": reason, "message": message})


def said(content: Report) -> str:
    """A report as it stands in a termination message."""
    return content.model_dump_json(exclude_defaults=True)


def ended(exit_code: int, message: str = "", reason: str | None = None) -> Manifest:
    """State of a container that ended."""
    return {"terminated": {"exitCode": exit_code, "message": message,
                           "reason": reason or ("Error" if exit_code else "Completed")}}  # fmt: skip


def waiting(reason: str, message: str = "") -> Manifest:
    """State of a container that does not run yet."""
    return {"waiting": {"reason": reason, "message": message}}


RUNNING: Manifest = {"running": {"startedAt": "2026-03-01T11:00:00Z"}}


def pod(job: Manifest, number: int = 0, state: Manifest | None = None, **status: Any) -> Manifest:
    """The ``number``-th pod of a Job, its one container in ``state``; still Pending without one."""
    phase = "Pending"
    if state is not None and "running" in state:
        phase = "Running"
    elif state is not None and "terminated" in state:
        phase = "Failed" if state["terminated"]["exitCode"] else "Succeeded"
    statuses = [{"name": "run", "image": "slmops/trainer:0.1.0", "state": state}] if state is not None else []
    name = job["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{number:05}",
            "namespace": NAMESPACE,
            "uid": f"pod-{number}-of-{name}",
            "creationTimestamp": f"2026-03-01T11:{number:02}:00Z",
            "labels": job["metadata"].get("labels", {}),
            "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
        },
        "status": {"phase": phase, "containerStatuses": statuses} | status,
    }


def live(manifest: Manifest, *conditions: Manifest, **fields: Any) -> Manifest:
    """A manifest of a plan as it is once the API server has it."""
    out = fresh(manifest)
    out["metadata"]["uid"] = f"uid-of-{out['kind']}-{out['metadata']['name']}"
    if conditions:
        out["status"] = {"conditions": list(conditions)}
    return out | fields


def job(*conditions: Manifest, annotations: dict[str, str] | None = None, **spec: Any) -> Manifest:
    """A live Job that is nobody's in particular."""
    metadata: Manifest = {"name": "x-train-0a1b2c3d", "namespace": NAMESPACE, "uid": "job"}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"suspend": False} | spec,
            "status": {"conditions": list(conditions)}}  # fmt: skip


def condition(type: str, reason: str = "", message: str = "", status: str = "True") -> Manifest:
    """A condition of a Job or a pod."""
    return {"type": type, "status": status, "reason": reason, "message": message}


COMPLETE = condition("Complete")
FAILED = condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")


# --- passes --------------------------------------------------------------------------------------------------------


def jobs(plan: Plan) -> list[Manifest]:
    """The Jobs that a plan makes."""
    return [manifest for manifest in plan.apply if manifest["kind"] == "Job"]


def configuration(plan: Plan, index: int = 0) -> dict[str, Any]:
    """What a plan's ConfigMap tells the image."""
    found = [manifest for manifest in plan.apply if manifest["kind"] == "ConfigMap"]
    return dict(json.loads(found[index]["data"]["run.json"]))


def done(plan: Plan, *reports: Report) -> Observed:
    """The plan's Jobs made and ended well, each with its report, in order."""
    made = [live(manifest, *([COMPLETE] if manifest["kind"] == "Job" else [])) for manifest in plan.apply]
    pods = [
        pod(manifest, state=ended(0, said(content)))
        for manifest, content in zip((m for m in made if m["kind"] == "Job"), reports, strict=True)
    ]
    return Observed(children=tuple(made), pods=tuple(pods))


def together(*parts: Observed, references: Iterable[Manifest] = ()) -> Observed:
    """All that several passes saw."""
    return Observed(
        children=tuple(child for part in parts for child in part.children),
        pods=tuple(pod for part in parts for pod in part.pods),
        references={(m["kind"], m["metadata"]["name"]): m for m in references},
        progress={uid: progress for part in parts for uid, progress in part.progress.items()},
    )


def facts(resource_status: Any) -> dict[str, tuple[str, str]]:
    """Conditions as {type: (status, reason)}."""
    return {c.type: (c.status, c.reason) for c in resource_status.conditions}


def told(resource_status: Any, type: str) -> str:
    """A condition's message."""
    return next(str(c.message) for c in resource_status.conditions if c.type == type)


def name_of(resource: Resource[Any, Any], plan: Plan) -> list[str]:
    """Names of a plan's Jobs, less the resource's own."""
    return [step.name.removeprefix(f"{resource.metadata.name}-") for step in plan.steps]


def holds(dumped: Any, written: Any) -> bool:
    """Whether all that is written was read; the rest are defaults."""
    if isinstance(written, dict):
        return all(key in dumped and holds(dumped[key], value) for key, value in written.items())
    if isinstance(written, list):
        return len(dumped) == len(written) and all(map(holds, dumped, written))
    return bool(dumped == written)
