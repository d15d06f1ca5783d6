"""Control groups of the local cluster's nodes, on both versions, with plain folders in the kernel's place."""

from pathlib import Path

import pytest

from tests.cluster import cgroups


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /sys/fs/cgroup."""
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    return tmp_path


def _group(path: Path, controllers: str, processes: str = "") -> None:
    path.mkdir(exist_ok=True)
    (path / "cgroup.controllers").write_text(controllers)
    (path / "cgroup.subtree_control").write_text("")
    (path / "cgroup.procs").write_text(processes)


def test_a_unified_machine_hands_the_controllers_down_twice(root: Path) -> None:
    _group(root, "cpuset cpu io memory pids rdma")
    _group(root / "slm-edge1", "cpuset cpu memory pids")
    cgroups.make("slm-edge1")
    assert (root / "cgroup.subtree_control").read_text() == "+cpuset +cpu +io +memory +pids"
    assert (root / "slm-edge1" / "cgroup.subtree_control").read_text() == "+cpuset +cpu +memory +pids"


def test_what_is_handed_down_already_is_not_written_again(root: Path) -> None:
    _group(root, "cpu memory")
    (root / "cgroup.subtree_control").write_text("cpu memory")
    _group(root / "slm-edge1", "cpu")
    cgroups.make("slm-edge1")
    assert (root / "cgroup.subtree_control").read_text() == "cpu memory"


def test_a_hybrid_machine_has_a_group_in_every_hierarchy_with_its_processors(root: Path) -> None:
    for hierarchy in ("cpuset", "memory", "unified"):
        (root / hierarchy).mkdir()
    (root / "cpuset" / "cpuset.cpus").write_text("0-1")
    (root / "cpuset" / "slm-edge1").mkdir()
    (root / "cpuset" / "slm-edge1" / "cpuset.cpus").write_text("")
    cgroups.make("slm-edge1")
    assert (root / "memory" / "slm-edge1").is_dir()
    assert (root / "cpuset" / "slm-edge1" / "cpuset.cpus").read_text() == "0-1"


def test_processes_are_found_at_any_depth_and_once(root: Path) -> None:
    _group(root, "cpu")
    _group(root / "slm-edge1", "cpu", "17\n")
    _group(root / "slm-edge1" / "kubepods", "cpu", "17\n23\n")
    _group(root / "other", "cpu", "99\n")
    assert cgroups.processes("slm-edge1") == {17, 23}
