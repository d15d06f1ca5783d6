"""Layers: the same files give the same bytes, and every reader of tar finds the same files in them."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from slmkit.layers import CHUNK, Layer

KNOWN = "sha256:a3c53520b43ae254feefab149bcac8271d8d8cb2587bec87eabe7f0beabde35f"
"""Written down, so that a change of Python's or of ours is noticed: with it, all images change."""


def place(folder: Path, contents: dict[str, bytes]) -> dict[str, Path]:
    """Files in the image, and where their content lies."""
    for number, content in enumerate(contents.values()):
        (folder / str(number)).write_bytes(content)
    return {name: folder / str(number) for number, name in enumerate(contents)}


def read(layer: Layer) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(layer.chunks()))) as tar:
        return tar.getmembers()


def test_the_bytes_are_those_of_always(tmp_path: Path) -> None:
    layer = Layer(place(tmp_path, {"models/x/b": b"weights", "models/x/a": b"", "models/x/c": bytes(range(256)) * 5}))
    assert layer.measure().digest == KNOWN


def test_neither_times_nor_modes_nor_order_nor_place_change_the_bytes(tmp_path: Path) -> None:
    contents = {"models/x/a": b"1", "models/x/b": b"2" * 513}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = place(tmp_path / "one", contents)
    two = place(tmp_path / "two", dict(reversed(contents.items())))
    for path in two.values():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    absolute = {f"/{name}": path for name, path in two.items()}
    assert Layer(one).measure() == Layer(two).measure() == Layer(absolute).measure()


def test_another_byte_or_another_name_is_another_digest(tmp_path: Path) -> None:
    files = place(tmp_path, {"a": b"1"})
    (path,) = files.values()
    digests = {Layer(files).measure().digest, Layer({"b": path}).measure().digest}
    path.write_bytes(b"2")
    digests.add(Layer(files).measure().digest)
    assert len(digests) == 3


def test_files_are_owned_by_root_and_readable_by_all(tmp_path: Path) -> None:
    members = read(Layer(place(tmp_path, {"models/x/a": b"1"})))
    assert [(info.name, info.isdir(), oct(info.mode)) for info in members] == [
        ("models", True, "0o755"), ("models/x", True, "0o755"), ("models/x/a", False, "0o644"),
    ]  # fmt: skip
    assert {(info.uid, info.gid, info.uname, info.gname, info.mtime) for info in members} == {(0, 0, "", "", 0)}


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, CHUNK - 1, CHUNK, CHUNK + 1])
def test_files_of_every_size_come_out_as_they_went_in(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    layer = Layer(place(tmp_path, {"models/x/a": content, "models/x/b": b"after"}))
    written = b"".join(layer.chunks())
    assert len(written) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(written)) as tar:
        found = {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}  # type: ignore[union-attr]
    assert found == {"models/x/a": content, "models/x/b": b"after"}
    digest = f"sha256:{hashlib.sha256(written).hexdigest()}"
    assert layer.measure() == (digest, len(written), digest)


def test_a_long_name_is_kept(tmp_path: Path) -> None:
    name = "models/" + "x" * 63 + "/" + "weights-" * 20
    assert read(Layer(place(tmp_path, {name: b"1"})))[-1].name == name


NAMES = st.text(
    st.characters(whitelist_categories=("Ll", "Lu", "Nd"), whitelist_characters="._-"), min_size=1, max_size=40
)


@given(st.dictionaries(NAMES.filter(lambda name: name.strip(".")), st.binary(max_size=1500), min_size=1, max_size=5))
def test_any_files_come_out_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("layer")
    layer = Layer(place(folder, {f"models/x/{name}": content for name, content in contents.items()}))
    with tarfile.open(fileobj=io.BytesIO(b"".join(layer.chunks()))) as tar:
        found = {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}  # type: ignore[union-attr]
    assert found == {f"models/x/{name}": content for name, content in contents.items()}


def test_no_layer_is_in_memory_as_a_whole(tmp_path: Path) -> None:
    layer = Layer(place(tmp_path, {"models/x/a": bytes(3 * CHUNK)}))
    assert max(len(chunk) for chunk in layer.chunks()) == CHUNK


# --- compressed


def packed(folder: Path, contents: dict[str, bytes]) -> tuple[Layer, Layer]:
    """The same files as a plain layer, and as a compressed one."""
    files = place(folder, contents)
    return Layer(files, "weights"), Layer(files, "weights", "Zstd")


def test_a_compressed_layer_is_the_plain_one_in_one_frame(tmp_path: Path) -> None:
    plain, small = packed(tmp_path, {"models/x/a": bytes(3 * CHUNK), "models/x/b": os.urandom(700)})
    written = b"".join(small.chunks())
    assert zstandard.ZstdDecompressor().decompressobj().decompress(written) == b"".join(plain.chunks())
    assert zstandard.get_frame_parameters(written).window_size <= 8 << 20, "RFC 8878: what every reader has to manage"
    assert len(written) < CHUNK
    digest = f"sha256:{hashlib.sha256(written).hexdigest()}"
    assert small.measure() == (digest, len(written), plain.measure().digest)
    assert plain.measure().diff_id == plain.measure().digest
    assert small.media_type == "application/vnd.oci.image.layer.v1.tar+zstd"
    assert plain.media_type == "application/vnd.oci.image.layer.v1.tar"


def test_a_compressed_layer_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    contents = {"models/x/a": os.urandom(1 << 16) * 40, "models/x/b": b"text " * 1000}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    _, one = packed(tmp_path / "one", contents)
    _, two = packed(tmp_path / "two", dict(reversed(contents.items())))
    assert one.measure() == two.measure() == one.measure()
