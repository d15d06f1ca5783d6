"""Nodes of the pools: who belongs where, of which hardware class, in which order they get their turn."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest

from slmops.api.base import quantity, share_of
from slmops.api.edgedeployment import Pool
from slmops.api.strategy import Wave
from slmops.state import Manifest

HOSTNAME = "kubernetes.io/hostname"
CLASS_LABEL = "slmops.dev/hardware-class"
PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")
ACCELERATORS = {"nvidia.com/gpu": "-nvidia", "amd.com/gpu": "-amd", "gpu.intel.com/i915": "-intel"}


class ClassPool(Pool):
    """The nodes of a pool that are of one hardware class: with variant Auto each has an image of its own."""

    base: str
    """Name of the pool in the spec."""
    hosts: frozenset[str]
    """Host names of its nodes. DaemonSets know them by nothing else: a node has no label that says its class."""
    image: str
    """The chosen one."""
    among: str
    """A hash of the images that there were to choose from."""


def in_spec(pool: Pool) -> str:
    """The name of a pool in the spec."""
    return pool.base if isinstance(pool, ClassPool) else pool.name


def own_settings(pool: Pool) -> dict[str, object]:
    """What the answers of few pools are shaped by, besides the model: empty where a pool has nothing of the kind."""
    return pool.model_dump(mode="json", include={"adapter", "generation"}, exclude_none=True)


@dataclass(frozen=True)
class Node:
    """One node of a pool."""

    name: str
    hostname: str
    """Its host name label, by which DaemonSets are told apart; nearly always the name."""
    hardware: str
    """Hardware class."""
    ready: bool
    """Whether its kubelet reports Ready. A node that does not is offline: skipped, and caught up later."""
    since: str | None = None
    """Since when it is ready, or is not."""
    memory: str | None = None
    """Memory for pods, as the kubelet writes it."""
    disk: str | None = None
    """Disk for pods and images, as the kubelet writes it."""
    pressed: bool = False
    """Whether it is short of memory or disk. No pod can begin there until that is over."""


def hardware_class(node: Manifest) -> str:
    """What can be compared: architecture, processors, memory in whole GiB, accelerator.

    The label ``slmops.dev/hardware-class`` wins where an administrator knows better.
    """
    labels = node["metadata"].get("labels") or {}
    if own := labels.get(CLASS_LABEL):
        return str(own)[:63]
    status = node.get("status") or {}
    capacity = status.get("capacity") or {}
    arch = (status.get("nodeInfo") or {}).get("architecture") or labels.get("kubernetes.io/arch") or "unknown"
    cpus = int(_number(capacity.get("cpu")))
    memory = round(float(_number(capacity.get("memory"))) / 2**30)
    accelerator = next((short for name, short in ACCELERATORS.items() if str(capacity.get(name, "0")) != "0"), "")
    return f"{arch}-{cpus}cpu-{memory}gi{accelerator}"


def _number(value: object) -> Decimal:
    """A capacity as a number; one written in a way that we do not read counts as none and must not stop the rest."""
    try:
        return quantity(str(value))
    except ValueError:
        return Decimal(0)


def _as_node(node: Manifest) -> Node:
    metadata, status = node["metadata"], node.get("status") or {}
    conditions: dict[str, Manifest] = {c.get("type", ""): c for c in status.get("conditions") or []}
    ready, room = conditions.get("Ready", {}), status.get("allocatable") or {}
    return Node(
        name=metadata["name"],
        hostname=(metadata.get("labels") or {}).get(HOSTNAME, metadata["name"]),
        hardware=hardware_class(node),
        ready=ready.get("status") == "True",
        since=ready.get("lastTransitionTime"),
        memory=room.get("memory"),
        disk=room.get("ephemeral-storage"),
        pressed=any((conditions.get(name) or {}).get("status") == "True" for name in PRESSURES),
    )


def pool_nodes(pool: Pool, nodes: Iterable[Manifest]) -> list[Node]:
    """The pool's nodes by name; a control plane's node never belongs to a pool."""
    found = []
    for node in nodes:
        labels = node["metadata"].get("labels") or {}
        if "node-role.kubernetes.io/control-plane" in labels:
            continue
        if isinstance(pool, ClassPool) and labels.get(HOSTNAME, node["metadata"]["name"]) not in pool.hosts:
            continue
        if all(labels.get(key) == value for key, value in pool.selector.match_labels.items()):
            found.append(_as_node(node))
    return sorted(found, key=lambda node: node.name)


def in_order(nodes: Iterable[Node], begun: Collection[str]) -> list[Node]:
    """Who comes first: those whose turn has begun, then one of each hardware class in turns, so that a class's first
    benchmark comes as early as possible. Offline nodes are left out."""
    by_class: dict[str, list[Node]] = defaultdict(list)
    for node in sorted(nodes, key=lambda node: node.name):
        if node.ready:
            by_class[node.hardware].append(node)
    spread = [n for tier in zip_longest(*(by_class[c] for c in sorted(by_class))) for n in tier if n is not None]
    return sorted(spread, key=lambda node: node.name not in begun)


def targets(waves: list[Wave], total: int, classes: int) -> list[int]:
    """How many of ``total`` nodes have the candidate at the end of each wave: never falling, one of each hardware class
    already in the first, all at the last."""
    counts: list[int] = []
    for wave in waves:
        counts.append(max(share_of(wave.nodes, total), counts[-1] if counts else classes))
    counts[-1] = total
    return counts
