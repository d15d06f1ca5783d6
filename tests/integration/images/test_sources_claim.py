"""Volumes: no path and no link leads out of them."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

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
def volume(volume: Path, tmp_path: Path) -> Path:
    """With some files on it, and one beside it."""
    (volume / "deep").mkdir()
    (volume / "deep" / "a.jsonl").write_bytes(DATA)
    (volume / "b.jsonl").write_bytes(b"b")
    (tmp_path / "secret").write_text(CANARY)
    return volume


class Count:
    """Counts bytes, as a run's progress does."""

    def __init__(self) -> None:
        self.of = self.step = 0

    def expect(self, more: int) -> None:
        self.of += more

    def advance(self, count: int) -> None:
        self.step += count


def fetched(uri: str, into: Path, path: str | None = None, meter: Count | None = None) -> str:
    with FakeRegistry() as unused:
        registry = unused.client()
        registry.meter = meter or registry.meter
        return fetch(Source(uri=uri), into, registry, "dataset", path)


def claim(uri: str, into: Path) -> dict[str, bytes]:
    address = fetched(uri, into)
    assert address.startswith(f"{uri}#sha256=")
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


# --- digests


def by_hand(folder: Path) -> str:
    """What in-toto's specification says to type for a dirHash."""
    command = "find . -type f | cut -c3- | LC_ALL=C sort | xargs -r sha256sum | sha256sum | cut -f1 -d' '"
    return subprocess.run(["sh", "-c", command], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(("path", "folder"), [("/", ""), ("", ""), ("/deep", "deep"), ("/deep/", "deep")])
def test_an_address_has_the_digest_over_the_folders_files(volume: Path, tmp_path: Path, path: str, folder: str) -> None:
    address = fetched(f"pvc://claim{path}", tmp_path / "a")
    assert address == f"pvc://claim{path}#sha256={by_hand(volume / folder)}"
    assert fetched(address, tmp_path / "b") == address, "and gives the same files again"


def test_other_bytes_under_the_same_path_are_another_address_and_are_refused_where_one_was_named(
    volume: Path, tmp_path: Path
) -> None:
    before = fetched("pvc://claim/", tmp_path / "a")
    (volume / "deep" / "a.jsonl").write_bytes(DATA + b"\n")
    after = fetched("pvc://claim/", tmp_path / "b")
    assert before != after
    failed = refused(lambda: fetched(before, tmp_path / "c"))
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert after.rpartition("#")[2] in failed.message


def test_another_name_for_the_same_bytes_is_another_address(volume: Path, tmp_path: Path) -> None:
    before = fetched("pvc://claim/deep", tmp_path / "a")
    (volume / "deep" / "a.jsonl").rename(volume / "deep" / "b.jsonl")
    assert fetched("pvc://claim/deep", tmp_path / "b") != before


def test_bytes_are_counted_while_they_are_read(volume: Path, tmp_path: Path) -> None:
    meter = Count()
    fetched("pvc://claim/", tmp_path / "a", meter=meter)
    assert meter.of == meter.step == len(DATA) + 1


def test_of_a_data_set_with_a_path_nothing_else_is_read(volume: Path, tmp_path: Path) -> None:
    (volume / "huge").symlink_to("nowhere")
    os.truncate(volume / "b.jsonl", 1 << 40)  # takes no room, and hours to read
    meter = Count()
    address = fetched("pvc://claim/", tmp_path / "a", "deep/a.jsonl", meter)
    assert (meter.of, (tmp_path / "a" / "deep" / "a.jsonl").read_bytes()) == (len(DATA), DATA)
    assert not (tmp_path / "a" / "b.jsonl").exists()
    line = f"{hashlib.sha256(DATA).hexdigest()}  deep/a.jsonl\n"
    assert address == f"pvc://claim/#sha256={hashlib.sha256(line.encode()).hexdigest()}"


@pytest.mark.parametrize("path", ["../secret", "deep/../../../secret", "/etc/passwd"])
def test_no_path_of_a_data_set_leaves_the_folder(volume: Path, tmp_path: Path, path: str) -> None:
    assert refused(lambda: fetched("pvc://claim/deep", tmp_path / "a", path)).reason is Reason.UNSAFE_SOURCE


@pytest.mark.parametrize("fragment", ["sha256=12", "md5=abc"])
def test_what_is_no_digest_is_said_to_be_none(volume: Path, tmp_path: Path, fragment: str) -> None:
    assert refused(lambda: fetched(f"pvc://claim/#{fragment}", tmp_path / "a")).reason is Reason.INVALID_CONFIGURATION


def test_a_name_of_two_lines_is_refused(volume: Path, tmp_path: Path) -> None:
    (volume / "a\nb.jsonl").write_bytes(b"x")
    assert refused(lambda: fetched("pvc://claim/", tmp_path / "a")).reason is Reason.UNSAFE_SOURCE
