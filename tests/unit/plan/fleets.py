"""Fleets whose rollout is looked at: at rest, at a point of it, and what stands on their nodes by then."""

from typing import Any

from slmops.state import LABEL_ROLE
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import hosts, track

TWO = {"n1": "small", "n2": "small"}
FOUR = TWO | {"n3": "small", "n4": "big"}


def running(nodes: dict[str, str], **spec: Any) -> World:
    """Nodes, by hardware class, that all serve the first model."""
    world = World(nodes, **spec)
    world.settle()
    assert world.status["phase"] == "Ready"
    return world


def until(world: World, what: Any, limit: int = 60) -> World:
    """Everybody works until something is so."""
    for _ in range(limit):
        if what(world):
            return world
        world.turn()
    raise AssertionError("it never came to that")


def serving(*names: str, model: str) -> Any:
    """Whether these nodes have a ready server of a model."""
    return lambda world: all(model in world.serving(name) for name in names)


def tracks(world: World) -> dict[str, Any]:
    """Where the DaemonSet of each track may be."""
    return {track(found): hosts(found) for found in world.of_kind("DaemonSet")}


def nodes_with_job(world: World, role: str) -> set[str]:
    """Nodes that have a Job of a role."""
    jobs = [found for found in world.of_kind("Job") if found["metadata"]["labels"][LABEL_ROLE] == role]
    return {found["metadata"]["annotations"]["slmops.dev/node"].removesuffix(".local") for found in jobs}
