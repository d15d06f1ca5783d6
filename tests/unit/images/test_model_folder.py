"""Model folders: only plain weights and plain settings get past the door, whatever they call themselves."""

import io
import json
import pickle
import struct
import time
import zipfile
from pathlib import Path

import pytest

from slmkit.run import RunFailed
from slmkit.safety import check_model_folder, text, weights
from slmops.contract import Reason


def safetensors(tensors: dict[str, object], data: bytes = b"", header: bytes | None = None) -> bytes:
    written = json.dumps(tensors).encode() if header is None else header
    return struct.pack("<Q", len(written)) + written + data


def tensor(begin: object, end: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [begin, end]}


GOOD = safetensors({"__metadata__": {"format": "pt"}, "b": tensor(4, 8), "a": tensor(0, 4)}, bytes(8))


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(print))
    return buffer.getvalue()


def bad_file(tmp_path: Path, name: str, content: bytes) -> RunFailed:
    for good in ("model.safetensors", "other.safetensors"):
        (tmp_path / good).write_bytes(GOOD)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(RunFailed) as failed:
        check_model_folder(tmp_path)
    assert Path(name).name in failed.value.message
    return failed.value


def test_a_plain_model_passes(tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes(GOOD)
    (tmp_path / "empty.safetensors").write_bytes(safetensors({}))
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    (tmp_path / "README.md").write_text("x")
    check_model_folder(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "model.pth", "a.ckpt", "a.pkl", "a.pickle", "a.npy", "a.npz", "a.joblib",
     "modeling_x.py", "a.pyc", "a.so", "deep/er/model.PT", "A.Bin"],
)  # fmt: skip
def test_files_that_can_carry_code_are_refused(tmp_path: Path, name: str) -> None:
    assert bad_file(tmp_path, name, b"x").reason is Reason.UNSAFE_SOURCE


FORGED: dict[str, bytes] = {
    "a pickle": pickle.dumps({"a": print}, protocol=4),
    "an old pickle": pickle.dumps({"a": print}, protocol=0),
    "a zip": zipped(),
    "a zip after the tensors": GOOD + zipped(),
    "a zip before them": zipped() + GOOD,
    "nothing": b"",
    "seven bytes": b"1234567",
    "a length alone": struct.pack("<Q", 0),
    "a header longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
    "a negative length": struct.pack("<q", -1) + b"{}",
    "a header that is no JSON": safetensors({}, header=b"{"),
    "a header of another shape": safetensors({}, header=b"[]"),
    "a header of no text": safetensors({}, header=b"\xff\xfe"),
    "a deep header": safetensors({}, header=b"[" * 200_000),
    "a tensor without a place": safetensors({"a": {"dtype": "F32"}}),
    "a tensor that is none": safetensors({"a": 5}),
    "a place of one number": safetensors({"a": {"data_offsets": [0]}}),
    "a place of three": safetensors({"a": {"data_offsets": [0, 1, 2]}}),
    "a place in words": safetensors({"a": tensor(0, "4")}, bytes(4)),
    "a place in fractions": safetensors({"a": tensor(0, 4.0)}, bytes(4)),
    "a place beyond the end": safetensors({"a": tensor(0, 8)}, bytes(4)),
    "a place before the beginning": safetensors({"a": tensor(-4, 4)}, bytes(4)),
    "an end before its beginning": safetensors({"a": tensor(0, 4), "b": tensor(4, 0)}),
    "two in one place": safetensors({"a": tensor(0, 4), "b": tensor(2, 6)}, bytes(6)),
    "the same place twice": safetensors({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4)),
    "many dimensions": safetensors({"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, bytes(4)),
    "a gap": safetensors({"a": tensor(0, 4), "b": tensor(8, 12)}, bytes(12)),
    "more data than tensors": safetensors({"a": tensor(0, 4)}, bytes(5)),
    "no data": safetensors({"a": tensor(0, 4)}),
}


@pytest.mark.parametrize("forged", FORGED)
def test_what_only_calls_itself_safetensors_is_refused(tmp_path: Path, forged: str) -> None:
    assert bad_file(tmp_path, "x.safetensors", FORGED[forged]).reason is Reason.UNSAFE_SOURCE


def test_dimensions_of_thousands_of_digits_take_no_time(tmp_path: Path) -> None:
    """Their product took as long as the header's length squared: hours for a long one."""
    shape = ", ".join(["9" * 4000] * 400).encode()
    header = b'{"a": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 0]}}' % shape
    (tmp_path / "x.safetensors").write_bytes(safetensors({}, header=header))
    began = time.process_time()
    with pytest.raises(RunFailed, match="the header is not understood") as failed:
        check_model_folder(tmp_path)
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert time.process_time() - began < 1


def test_numbers_of_published_configurations_are_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    check_model_folder(tmp_path)


def test_a_header_beyond_all_measure_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "HEADER_LIMIT", 1000)
    padded = safetensors({}, header=b"{}" + b" " * 1000)
    failed = bad_file(tmp_path, "x.safetensors", padded)
    assert "forged header" in failed.message


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json", "deep/config.json"])
@pytest.mark.parametrize(
    "content",
    ['{"auto_map": {"AutoModel": "x.Y"}}', "[]", "5", "null", '"auto_map"', "{", "[" * 100_000, '"\udc80"'],
    ids=lambda content: content[:12].encode("ascii", "replace").decode(),
)
def test_configurations_with_code_or_without_sense_are_refused(tmp_path: Path, name: str, content: str) -> None:
    failed = bad_file(tmp_path, name, content.encode("utf-8", "surrogateescape"))
    assert failed.reason is Reason.UNSAFE_SOURCE


def test_a_configuration_beyond_all_measure_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.read_object, "__defaults__", (10,))
    assert bad_file(tmp_path, "config.json", b'{"a": "' + b"x" * 99 + b'"}').reason is Reason.UNSAFE_SOURCE


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("../x.safetensors", Reason.UNSAFE_SOURCE), ("/etc/x.safetensors", Reason.UNSAFE_SOURCE), (5, Reason.UNSAFE_SOURCE),
        ("weights.dat", Reason.UNSAFE_SOURCE), ("model.safetensors.dat", Reason.UNSAFE_SOURCE), ("", Reason.UNSAFE_SOURCE),
        ("missing.safetensors", Reason.SOURCE_NOT_FOUND),
    ],
)  # fmt: skip
def test_an_index_names_files_that_were_looked_at(tmp_path: Path, file: object, reason: Reason) -> None:
    index = json.dumps({"weight_map": {"a": "other.safetensors", "b": file}}).encode()
    assert bad_file(tmp_path, "model.safetensors.index.json", index).reason is reason


@pytest.mark.parametrize("content", [b"{}", b'{"weight_map": []}', b"[]", b"{"])
def test_an_index_without_files_is_refused(tmp_path: Path, content: bytes) -> None:
    assert bad_file(tmp_path, "model.safetensors.index.json", content).reason is Reason.UNSAFE_SOURCE
