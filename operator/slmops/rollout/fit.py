"""Whether a server fits on a node with its model, as far as that can be told before anything is begun there, and how many
bytes it takes to bring the model.

Other pods' requests are the scheduler's affair, and images on the disk may be taken away by the kubelet: only what can
never fit is told here. What cannot be read counts as room enough.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from slmops.api.base import quantity
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.api.run import Resources
from slmops.figures import size
from slmops.rollout.fleet import Node, in_spec
from slmops.state import LABEL_POOL, LABEL_REVISION, LABEL_ROLE, JobState, Manifest, Observed

DEFAULTS = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"})
Compute = dict[str, dict[str, str]]


def server_resources(resource: EdgeDeployment, pool: Pool) -> Compute:
    """Of a pool's server: what the user asked for, filled with defaults that never contradict it: no request may exceed its
    limit."""
    wanted = pool.resources or resource.spec.runtime.resources
    requests, limits = ({k: str(v) for k, v in part.items()} for part in (wanted.requests, wanted.limits))
    for name, default in DEFAULTS.limits.items():
        limits.setdefault(name, max(str(default), requests.get(name, "0"), key=quantity))
    for name, default in DEFAULTS.requests.items():
        requests.setdefault(name, min(str(default), limits.get(name, str(default)), key=quantity))
    return {"requests": requests, "limits": limits}


def too_large(resource: EdgeDeployment, pool: Pool, model: int | None) -> str:
    """Why a server of the pool could not hold a model of so many bytes; empty where it may."""
    limit = server_resources(resource, pool)["limits"]["memory"]
    if model is None or model <= quantity(limit):
        return ""
    field = f"spec.pools[{in_spec(pool)}].resources" if pool.resources else "spec.runtime.resources"
    return f"the model has {size(model)}, and its server may have {limit} of memory: raise {field}.limits.memory"


@dataclass(frozen=True)
class Need:
    """What the candidate takes on a node of a pool."""

    memory: Decimal
    """That its server requests, bytes."""
    image: int | None
    """Bytes of its model image; None where they are not known yet."""


def need(resource: EdgeDeployment, pool: Pool, image: int | None) -> Need:
    """Of the wanted revision."""
    return Need(quantity(server_resources(resource, pool)["requests"]["memory"]), image)


def misfit(wanted: Need, node: Node, incumbent: Manifest | None) -> str:
    """Why the candidate can never come to a node; ``incumbent`` is the DaemonSet of what serves there beside it."""
    memory, disk = _number(node.memory), _number(node.disk)
    if disk is not None and wanted.image is not None and wanted.image > disk:
        return f"the model image has {size(wanted.image)}, and the node's disk {size(int(disk))} for pods and images"
    beside = _requested(incumbent) if incumbent is not None else Decimal(0)
    if memory is None or wanted.memory + beside <= memory:
        return ""
    both = f", beside the stable one's {size(int(beside))}" if beside else ""
    return (
        f"its server requests {size(int(wanted.memory))} of memory{both}, and the node has {size(int(memory))} for pods"
    )


def told_bytes(resource: EdgeDeployment, observed: Observed, images: Mapping[str, str]) -> dict[str, int]:
    """Bytes of the model image by pool, as the QuantizedModel says."""
    source = resource.spec.model.quantized_model
    known = _variants(observed.references.get(("QuantizedModel", source.name)) if source else None)
    return {pool: known[image] for pool, image in images.items() if image in known}


def image_bytes(
    resource: EdgeDeployment, observed: Observed, images: Mapping[str, str], revision: str
) -> dict[str, int]:
    """The same, or else as the revision's first node has found them; without pools of which nobody has said anything."""
    found = told_bytes(resource, observed, images)
    for job in observed.of_kind("Job") if len(found) < len(images) else ():
        labels = job["metadata"].get("labels") or {}
        pool, ours = str(labels.get(LABEL_POOL)), (labels.get(LABEL_ROLE), labels.get(LABEL_REVISION))
        if pool in images and pool not in found and ours == ("pull", revision):
            count = pulled(observed.job(job["metadata"]["name"]))
            found |= {pool: count} if count else {}
    return found


def pulled(state: JobState) -> int | None:
    """Bytes of the model that a pull Job has found on its node."""
    figures = state.report.evaluation.get("model") if state.report is not None else None
    return figures.weight_bytes if figures is not None else None


def _variants(manifest: Manifest | None) -> dict[str, int]:
    variants: Iterable[Manifest] = ((manifest or {}).get("status") or {}).get("variants") or []
    found = {str(v["reference"]): _number(v.get("size")) for v in variants if v.get("reference")}
    return {reference: int(size) for reference, size in found.items() if size is not None}


def _requested(daemon_set: Manifest) -> Decimal:
    (container, *_) = daemon_set["spec"]["template"]["spec"]["containers"]
    return _number(((container.get("resources") or {}).get("requests") or {}).get("memory")) or Decimal(0)


@lru_cache(maxsize=1024)  # nodes come by thousands, and are alike
def _number(value: str | int | None) -> Decimal | None:
    try:
        return quantity(value) if value is not None else None
    except ValueError:
        return None
