"""Model folders: what is no weight and no setting, and settings that would eat a machine."""

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from slmkit.safety import check_model_folder
from slmops.contract import Reason
from tests.unit.images.modelfolder import refused


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"num_hidden_layers": 10**9}), ("config.json", {"text_config": {"auto_map": {"AutoModel": "x.Y"}}}),
        ("config.json", {"vocab_size": 1e300}), ("config.json", {"hidden_size": -(10**9)}),
        ("config.json", {"_attn_implementation": "somebody/kernels"}), ("config.json", {"trust_remote_code": True}),
        ("adapter_config.json", {"auto_mapping": {"parent_library": "os", "base_model_class": "x"}}),
        ("adapter_config.json", {"r": 10**9}), ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.Y", None]}}),
    ],
)  # fmt: skip
def test_a_configuration_beyond_a_plain_model_is_refused(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    assert refused(tmp_path, name) is Reason.UNSAFE_SOURCE


def test_an_adapter_as_peft_writes_it_passes(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"auto_mapping": None, "r": 16, "peft_type": "LORA"}))
    check_model_folder(tmp_path)


def packed(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb", bytes(1 << 20))
    elif kind == "tar":
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("../../etc/passwd"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["a.zip", "a.tar", "a.gz", "a.tgz", "a.zst", "a.7z", "a.whl", "a.h5", "a.msgpack", "a.pb"]
)
def test_archives_are_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path, name)


DISGUISED = {
    "zip": packed("zip"), "tar": packed("tar"), "gzip": gzip.compress(bytes(1 << 20)), "zstd": b"\x28\xb5\x2f\xfdxx",
    "pickle": pickle.dumps([print], protocol=4), "program": b"\x7fELF\x02\x01\x01", "numpy": b"\x93NUMPY\x01\x00",
    "hdf5": b"\x89HDF\r\n\x1a\n",
}  # fmt: skip


@pytest.mark.parametrize("content", DISGUISED)
@pytest.mark.parametrize("name", ["vocab.txt", "README.md", "config.yaml", "weights"])
def test_what_a_file_is_counts_and_not_its_name(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(DISGUISED[content])
    assert refused(tmp_path, name, "whatever it is called") is Reason.UNSAFE_SOURCE


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "/proc/self/environ", "/"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").symlink_to(target)
    assert refused(folder, "config.json", "link that leaves the folder") is Reason.UNSAFE_SOURCE


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    refused(tmp_path, "config.json")


def test_a_labyrinth_is_refused(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*"abcdefgh")
    folder.mkdir(parents=True)
    (folder / "x.txt").write_text("x")
    refused(tmp_path, "folders deep")
