"""Volumes: no path and no link leads out of them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from slmkit import sources
from slmkit.run import RunFailed
from slmkit.sources import fetch
from slmops.contract import Reason, Source
from tests.unit.images.fakeregistry import FakeRegistry

DATA = b'{"prompt": "q"}\n' * 10
CANARY = "canary-t0ken"


def refused(act: Callable[[], object]) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        act()
    return failed.value


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sources, "PVC_ROOT", tmp_path / "pvc")
    folder = tmp_path / "pvc" / "claim"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.jsonl").write_bytes(DATA)
    (folder / "b.jsonl").write_bytes(b"b")
    (tmp_path / "secret").write_text(CANARY)
    return folder


def claim(uri: str, into: Path) -> dict[str, bytes]:
    with FakeRegistry() as unused:
        assert fetch(Source(uri=uri), into, unused.client()) == uri
    return {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}


def test_a_folder_of_a_volume_is_linked_not_copied(volume: Path, tmp_path: Path) -> None:
    assert claim("pvc://claim/", tmp_path / "a") == {"deep/a.jsonl": DATA, "b.jsonl": b"b"}
    assert claim("pvc://claim/deep", tmp_path / "b") == {"a.jsonl": DATA}
    assert claim("pvc://claim/b.jsonl", tmp_path / "c") == {"b.jsonl": b"b"}
    assert (tmp_path / "a" / "b.jsonl").is_symlink()


@pytest.mark.parametrize(
    "uri", ["pvc://claim/../../secret", "pvc://claim/..", "pvc://../secret", "pvc://./claim/..", "pvc:///claim",
            "pvc://claim//etc/passwd", "pvc://claim/deep/../../other"],
)  # fmt: skip
def test_no_path_leaves_the_volume(volume: Path, tmp_path: Path, uri: str) -> None:
    (tmp_path / "pvc" / "other").mkdir()
    failed = refused(lambda: claim(uri, tmp_path / "out"))
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "../other/x", "deep/../../../secret"])
def test_a_link_that_leaves_the_volume_is_refused(volume: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "pvc" / "other").mkdir()
    (tmp_path / "pvc" / "other" / "x").write_text("x")
    (volume / "link.jsonl").symlink_to(target)
    assert refused(lambda: claim("pvc://claim/", tmp_path / "a")).reason is Reason.UNSAFE_SOURCE
    assert refused(lambda: claim("pvc://claim/link.jsonl", tmp_path / "b")).reason is Reason.UNSAFE_SOURCE


def test_a_link_within_the_volume_is_followed(volume: Path, tmp_path: Path) -> None:
    (volume / "link.jsonl").symlink_to("deep/a.jsonl")
    assert claim("pvc://claim/", tmp_path / "a")["link.jsonl"] == DATA


def test_what_is_no_file_is_left_out(volume: Path, tmp_path: Path) -> None:
    os.mkfifo(volume / "pipe.jsonl")
    (volume / "broken.jsonl").symlink_to("nowhere")
    (volume / "outside").symlink_to("/etc")
    assert set(claim("pvc://claim/", tmp_path / "a")) == {"deep/a.jsonl", "b.jsonl"}


def test_a_path_that_is_not_there_is_named(volume: Path, tmp_path: Path) -> None:
    failed = refused(lambda: claim("pvc://claim/missing", tmp_path / "a"))
    assert failed.reason is Reason.SOURCE_NOT_FOUND
    assert "pvc://claim/missing" in failed.message
