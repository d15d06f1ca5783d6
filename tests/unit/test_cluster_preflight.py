"""What a start says: what a machine lacks (on paper only) with its remedy, and where to look in the end."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cluster import binaries, cluster, preflight
from tests.cluster.layout import KUBECONFIG, LOGS
from tests.cluster.shell import Failed


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A machine that has all, with its programs still to be built; what a test changes it lacks."""
    has = SimpleNamespace(root=True, memory=8.0, disk=30.0, built=False, tools=True, installed=[])
    built = tmp_path / "built"
    built.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 0 if has.root else 1000)
    monkeypatch.setattr(os, "sysconf", lambda name: 1 if name == "SC_PAGE_SIZE" else int(has.memory * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=has.disk * 2**30))
    monkeypatch.setattr(preflight, "STATE", tmp_path / "not" / "there" / "yet")
    monkeypatch.setattr(preflight, "folder", lambda program: built if has.built else tmp_path / "missing")
    monkeypatch.setattr(preflight, "go", lambda: "/usr/local/go/bin/go")
    monkeypatch.setattr(preflight, "_which", lambda tool: "/usr/bin/x" if has.tools else None)
    monkeypatch.setattr(preflight, "run", lambda *command: has.installed.extend(command))
    return has


def told() -> list[str]:
    """What it says, line by line."""
    with pytest.raises(Failed) as failed:
        preflight.preflight()
    return str(failed.value).splitlines()


def test_a_machine_that_has_all_is_taken(machine: SimpleNamespace) -> None:
    preflight.preflight()
    assert machine.installed == []


@pytest.mark.parametrize(
    ("lacks", "words"),
    [
        ({"root": False}, ["needs root", "be root, or set KUBECONFIG"]),
        ({"memory": 5.7}, ["5.7 GiB of memory, 6 are needed", "take a machine with more, or set KUBECONFIG"]),
        ({"disk": 19.9}, ["19.9 GiB free", "20 are needed", "free some, or set SLMOPS_CLUSTER_DIR"]),
        ({"disk": 9.9, "built": True}, ["9.9 GiB free", "10 are needed"]),
    ],
)
def test_what_is_lacking_is_said_with_its_remedy(
    machine: SimpleNamespace, lacks: dict[str, object], words: list[str]
) -> None:
    vars(machine).update(lacks)
    (line,) = told()
    assert [word for word in words if word not in line] == []


def test_all_that_is_lacking_is_said_at_once_and_nothing_is_installed_before(machine: SimpleNamespace) -> None:
    vars(machine).update(root=False, memory=1, disk=1, tools=False)
    assert len(told()) == 3
    assert machine.installed == []


def test_less_disk_is_enough_once_the_programs_are_built(machine: SimpleNamespace) -> None:
    vars(machine).update(built=True, disk=10.1)
    preflight.preflight()


def test_go_is_asked_for_only_where_something_is_to_be_built(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise Failed("Go is needed: install it")

    monkeypatch.setattr(preflight, "go", none)
    assert told() == ["Go is needed: install it"]
    machine.built = True
    preflight.preflight()


# --- Go


@pytest.fixture
def gos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Puts a Go on PATH and another where Go's instructions say: what each says of itself, None for none."""

    def put(on_path: str | None, local: str | None = None, toolchain: str = "local") -> None:
        for name, version in (("path", on_path), ("local", local)):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            if version is not None:
                script = f'#!/bin/sh\n[ "$1" = env ] && echo {toolchain} || echo go version {version} linux/amd64\n'
                (folder / "go").write_text(script)
                (folder / "go").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "path"))
        monkeypatch.setattr(binaries, "GO_FOLDER", str(tmp_path / "local"))

    return put


NEEDED = ".".join(map(str, binaries.needed_go()))


def test_every_go_mod_is_heard() -> None:
    assert binaries.needed_go() >= (1, 26, 8)
    assert len(list((binaries.HERE / "go").glob("*/go.mod"))) >= 13


@pytest.mark.parametrize(
    ("on_path", "local", "toolchain", "taken"),
    [
        (f"go{NEEDED}", None, "local", "path"),
        ("go1.99", None, "local", "path"),
        ("devel go1.99-0a1b2c3", None, "local", "path"),
        ("go1.19.8", f"go{NEEDED}", "local", "local"),
        (None, f"go{NEEDED}", "local", "local"),
        ("go1.21.0", None, "auto", "path"),
        ("go1.24.4", None, "go1.24.4+auto", "path"),
    ],
)
def test_the_first_go_that_can_build_is_taken(
    gos: Callable[..., None], tmp_path: Path, on_path: str | None, local: str | None, toolchain: str, taken: str
) -> None:
    gos(on_path, local, toolchain)
    assert binaries.go() == str(tmp_path / taken / "go")


@pytest.mark.parametrize(
    ("on_path", "toolchain", "word"),
    [
        (None, "local", "there is none"),
        ("go1.19.8", "", "is 1.19.8"),
        ("go1.19.8", "auto", "is 1.19.8"),
        ("go1.26", "local", "is 1.26.0"),
        ("go1.24.4", "path", "is 1.24.4"),
        ("nonsense", "local", "is of an unknown version"),
    ],
)
def test_a_go_that_cannot_build_is_refused_with_the_remedy(
    gos: Callable[..., None], on_path: str | None, toolchain: str, word: str
) -> None:
    gos(on_path, toolchain=toolchain)
    with pytest.raises(Failed) as failed:
        binaries.go()
    assert f"Go {NEEDED} or newer is needed" in str(failed.value)
    assert word in str(failed.value)
    assert "https://go.dev/dl" in str(failed.value)


# --- the end


def test_a_cluster_that_runs_already_says_where_its_kubeconfig_and_its_logs_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "STATE", tmp_path / "cluster")
    monkeypatch.setattr(cluster, "preflight", lambda: None)
    monkeypatch.setattr(cluster, "build", lambda: None)
    monkeypatch.setattr(cluster.Cluster, "healthy", lambda self: True)
    made: list[str] = []
    monkeypatch.setattr(cluster.Cluster, "namespace", lambda self, name: made.append(name))
    cluster.Cluster().up()
    assert "edge-ai" in made, "somebody may have deleted it to begin anew"
    said = capsys.readouterr().out
    assert f"KUBECONFIG={KUBECONFIG}" in said
    assert str(LOGS) in said
