"""Who belongs to a pool, of which hardware class, and who comes first."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.api.edgedeployment import Pool
from slmops.api.strategy import Wave
from slmops.rollout.fleet import Node, hardware_class, in_order, pool_nodes, targets
from slmops.state import Manifest
from tests.unit.fleet_builders import at, node, parsed


def _pool(**labels: str) -> Pool:
    return Pool.model_validate({"name": "farms", "selector": {"matchLabels": labels}})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (node("n", cpu="4", memory="8Gi"), "amd64-4cpu-8gi"),
        (node("n", cpu="3920m", memory="7900Mi"), "amd64-3cpu-8gi"),
        (node("n", cpu="8", memory="16393064Ki"), "amd64-8cpu-16gi"),
        (node("n", cpu="8", memory="17179869184"), "amd64-8cpu-16gi"),
        (node("n", **{"nvidia.com/gpu": "1"}), "amd64-4cpu-8gi-nvidia"),
        (node("n", **{"gpu.intel.com/i915": "2"}), "amd64-4cpu-8gi-intel"),
        (node("n", **{"nvidia.com/gpu": "0"}), "amd64-4cpu-8gi"),
        (node("n", hardware="pi-5"), "pi-5"),
        (node("n", hardware="x" * 70), "x" * 63),
    ],
)
def test_the_hardware_class_is_what_can_be_compared(found: Manifest, expected: str) -> None:
    assert hardware_class(found) == expected


@pytest.mark.parametrize("strange", ["32E", "1.5e3", "-1", "", "many"])
def test_a_capacity_that_is_not_understood_counts_as_none_and_stops_nobody(strange: str) -> None:
    """Virtual kubelets report what they like; one of them must not end every pass with an exception."""
    assert hardware_class(node("n", cpu="4", memory=strange)) == "amd64-4cpu-0gi"
    assert hardware_class(node("n", cpu=strange, memory="8Gi")) == "amd64-0cpu-8gi"


def test_a_node_that_says_nothing_of_itself_has_a_class_still() -> None:
    assert hardware_class({"metadata": {"name": "n"}}) == "unknown-0cpu-0gi"
    arch = {"kubernetes.io/arch": "arm64"}
    assert hardware_class({"metadata": {"name": "n", "labels": arch}, "status": {}}) == "arm64-0cpu-0gi"


def test_a_node_belongs_to_the_pool_when_all_labels_match() -> None:
    nodes = [
        node("b", labels={"region": "north"}), node("a", labels={"region": "north"}), node("c"),
        node("d", pool="barns", labels={"region": "north"}), node("e", pool=None),
    ]  # fmt: skip
    assert [n.name for n in pool_nodes(_pool(pool="farms", region="north"), nodes)] == ["a", "b"]


def test_a_control_plane_never_belongs_to_a_pool() -> None:
    nodes = [node("a", labels={"node-role.kubernetes.io/control-plane": ""}), node("b")]
    assert [n.name for n in pool_nodes(_pool(pool="farms"), nodes)] == ["b"]


def test_a_node_is_known_by_name_and_by_host_name() -> None:
    assert parsed(node("a")).hostname == "a"
    assert parsed(node("a", hostname="a.farm.example")).hostname == "a.farm.example"
    assert parsed(node("a", hostname=None)).hostname == "a"


def test_a_node_is_ready_only_when_its_kubelet_says_so() -> None:
    assert parsed(node("a", since=-3)) == Node("a", "a", "amd64-4cpu-8gi", True, at(-3))
    assert parsed(node("a", ready=False, since=-3)) == Node("a", "a", "amd64-4cpu-8gi", False, at(-3))
    silent = node("a")
    silent["status"]["conditions"] = None
    assert parsed(silent).ready is False


def _nodes(*spec: str) -> list[Node]:
    """``small-1`` is a node of class small, ``!small-1`` an offline one."""
    names = [text.removeprefix("!") for text in spec]
    return [
        Node(name, name, name.split("-")[0], not text.startswith("!")) for name, text in zip(names, spec, strict=True)
    ]


@pytest.mark.parametrize(
    ("nodes", "begun", "expected"),
    [
        (("small-2", "small-1", "big-1"), (), ["big-1", "small-1", "small-2"]),
        (("a-1", "a-2", "a-3", "b-1", "c-1", "c-2"), (), ["a-1", "b-1", "c-1", "a-2", "c-2", "a-3"]),
        (("a-1", "a-2", "b-1"), ("a-2",), ["a-2", "a-1", "b-1"]),
        (("a-1", "!a-2", "b-1", "!b-2"), ("a-2",), ["a-1", "b-1"]),
        (("!a-1",), (), []),
        ((), (), []),
    ],
)
def test_begun_turns_come_first_then_one_of_each_class(
    nodes: tuple[str, ...], begun: tuple[str, ...], expected: list[str]
) -> None:
    assert [n.name for n in in_order(_nodes(*nodes), begun)] == expected
    assert [n.name for n in in_order(_nodes(*reversed(nodes)), begun)] == expected, "the order of a list means nothing"


@pytest.mark.parametrize(
    ("waves", "total", "classes", "expected"),
    [
        ([1, "100%"], 10, 1, [1, 10]),
        ([1, "10%", "50%", "100%"], 10, 1, [1, 1, 5, 10]),
        (["10%", "100%"], 3, 1, [1, 3]),
        ([5, "10%", "100%"], 20, 1, [5, 5, 20]),
        ([5, "100%"], 2, 1, [2, 2]),
        (["33%", "66%", "100%"], 3, 1, [1, 2, 3]),
        ([1, "100%"], 0, 0, [0, 0]),
        # One of each class in the first one.
        ([1, "20%", "100%"], 10, 3, [3, 3, 10]),
        ([4, "100%"], 10, 3, [4, 10]),
        ([1, "100%"], 2, 2, [2, 2]),
    ],
)
def test_how_many_nodes_each_wave_ends_with(waves: list[Any], total: int, classes: int, expected: list[int]) -> None:
    assert targets([Wave(name=f"w{i}", nodes=nodes) for i, nodes in enumerate(waves)], total, classes) == expected


@settings(derandomize=True, max_examples=100)
@given(
    waves=st.lists(st.integers(1, 50) | st.integers(1, 100).map(lambda n: f"{n}%"), max_size=6),
    total=st.integers(0, 60),
    classes=st.integers(0, 60),
)
def test_waves_never_fall_never_exceed_the_pool_and_never_are_nobody(
    waves: list[Any], total: int, classes: int
) -> None:
    classes = min(classes, total)
    found = targets([Wave(name=f"w{i}", nodes=nodes) for i, nodes in enumerate([*waves, "100%"])], total, classes)
    assert found[0] >= classes
    assert found == sorted(found)
    assert found[-1] == total
    assert all(0 < count <= total for count in found) or total == 0
