"""Adapters beside a model: only matrices that the model has a place for, each as long as its shape says."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.run import RunFailed
from slmkit.safety import check_runtime_folder
from slmkit.safety.adapters import check_adapter, listed, parameters
from slmkit.safety.onnx.inputs import Place, optional_inputs
from slmkit.safety.onnx.wire import MalformedError
from slmops.contract import Reason
from tests.unit.images.adapterbytes import FLOAT16, MADE, Written, adaptable, adapter, beside, floats, matrix
from tests.unit.images.onnxbytes import FLOAT, GOOD, graph, model, node

A, B = "q.lora_A.weight", "q.lora_B.weight"
PLACES = {A: Place(FLOAT, (2, "q.rank")), B: Place(FLOAT, ("q.rank", 2))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that takes adapters, with two."""
    config = {"model": {"decoder": {"filename": "model.onnx"}}}
    (tmp_path / "genai_config.json").write_text(json.dumps(config))
    (tmp_path / "model.onnx").write_bytes(adaptable())
    beside(tmp_path, {"irrigation": adapter(), "greenhouse": adapter(rank=3)})
    return tmp_path


def refused(folder: Path, words: str) -> None:
    with pytest.raises(RunFailed) as failed:
        check_runtime_folder(folder)
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert words in failed.value.message


def test_what_onnx_runtime_writes_is_read() -> None:
    found = {one.name: (one.type, one.shape, MADE[one.begin : one.begin + one.size]) for one in parameters(MADE, 2)}
    assert found == {"x.weight": (FLOAT, (2, 3), floats(0, 1, 2, 3, 4, 5)), "b": (FLOAT16, (4,), bytes(8))}


def test_adapters_that_fit_pass_each_with_a_rank_of_its_own(folder: Path) -> None:
    check_runtime_folder(folder)
    assert listed(folder) == {
        name: folder / "adapters" / f"{name}.onnx_adapter" for name in ("irrigation", "greenhouse")
    }


def test_a_model_without_adapters_has_none(tmp_path: Path) -> None:
    assert listed(tmp_path) == {}


def test_only_inputs_with_a_default_are_places(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(adaptable())
    assert optional_inputs(path) == PLACES
    path.write_bytes(GOOD)
    assert optional_inputs(path) == {}


def forged(*matrices: bytes, **fields: Any) -> bytes:
    return Written(*matrices, **fields).bytes


HALF = matrix(A, [2, 1], floats(1, 2))
OTHER = matrix(B, [1, 2], floats(1, 2))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"TORT" * 4, "cut off, or forged"),
        (b"TORTFORT", "is no adapter"),
        (forged(HALF, OTHER, identifier=b"ORTM"), "is no adapter"),
        (forged(HALF, OTHER, version=2), "is of another version"),
        (forged(HALF, OTHER, count=2**29), "cut off, or forged"),
        (forged(HALF, OTHER, count=9), "more than the 2 matrices"),
        (forged(HALF, OTHER, matrix("x", [2], floats(1, 2))), "more than the 2 matrices"),
        (forged(), "holds no matrix"),
        (forged(HALF), f"it has no {B}"),
        (forged(HALF, HALF), "is there twice"),
        (forged(HALF, matrix("input_ids", [1, 2], floats(1, 2))), "'input_ids' is no input"),
        (forged(HALF, matrix(B, [1, 2], bytes(4), FLOAT16)), "of another type"),
        (forged(HALF, matrix(B, [1, 2], bytes(16), type=11)), "of another type"),
        (forged(HALF, matrix(B, [2], floats(1, 2))), "of another type"),
        (forged(HALF, matrix(B, [1, 3], floats(1, 2, 3))), "another shape"),
        (forged(HALF, matrix(B, [2, 2], floats(1, 2, 3, 4))), "another shape"),
        (forged(HALF, matrix(B, [0, 2], b"")), "another shape"),
        (forged(HALF, matrix(B, [-1, 2], floats(1, 2))), "another shape"),
        (forged(matrix(A, [2, 2**40], floats(1)), OTHER), "another shape"),
        (forged(HALF, matrix(B, [1, 2], floats(1))), "not as long as its shape says"),
        (forged(matrix(A, [2, 16000], floats(1, 2)), matrix(B, [16000, 2], floats(1, 2))), "not as long as"),
        (forged(HALF, matrix(B, [1, 2], floats(1, 2), size=2**31)), "cut off, or forged"),
        (adapter()[:-4], "cut off, or forged"),
    ],
)  # fmt: skip
def test_a_forged_adapter_is_refused_before_the_runtime_sees_it(folder: Path, content: bytes, words: str) -> None:
    beside(folder, {"irrigation": content})
    (folder / "adapters" / "greenhouse.onnx_adapter").unlink()
    refused(folder, words)


def test_matrices_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """A few bytes would become many on their way to a GPU."""
    names = [f"n{number}" for number in range(64)]
    one = forged(*(matrix(name, [64], b"" if name != "n63" else bytes(256), size=256) for name in names))
    places = {name: Place(FLOAT, (64,)) for name in names}
    path = tmp_path / "x.onnx_adapter"
    content = bytearray(one)
    raws = [found.begin for found in parameters(one, 64)]
    for raw in raws:
        where = raw - 28  # of the word that leads to the numbers: between them are a name, a shape, and two lengths
        assert where + struct.unpack_from("<I", one, where)[0] == raw - 4
        struct.pack_into("<I", content, where, raws[-1] - 4 - where)
    path.write_bytes(content)
    with pytest.raises(RunFailed, match="lie over each other"):
        check_adapter(path, places)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told["irrigation"].update(digest="sha256:" + "0" * 64), "it has another digest"),
        (lambda told: told["irrigation"].update(file="../secret.onnx_adapter"), "is no name of a file"),
        (lambda told: told["irrigation"].update(file="/etc/x.onnx_adapter"), "is no name of a file"),
        (lambda told: told["irrigation"].update(file="model.onnx"), "is no adapter with a file"),
        (lambda told: told["irrigation"].update(file=5), "is no adapter with a file"),
        (lambda told: told.update(greenhouse=[]), "is no adapter with a file"),
        (lambda told: told.update({"Bad:name": told["irrigation"]}), "is no adapter with a file"),
        (lambda told: told.update({f"a{n}": told["irrigation"] for n in range(64)}), "more than 64 adapters"),
        (lambda told: told.pop("irrigation"), "adapters.json does not name it"),
        (lambda told: told["irrigation"].update(file="adapters/none.onnx_adapter"), "is not there"),
    ],
)
def test_a_list_that_names_something_else_is_refused(folder: Path, change: Any, words: str) -> None:
    told = json.loads((folder / "adapters.json").read_text())
    change(told)
    (folder / "adapters.json").write_text(json.dumps(told))
    refused(folder, words)


def test_an_adapter_that_nobody_lists_is_refused(folder: Path) -> None:
    (folder / "adapters.json").unlink()
    refused(folder, "adapters.json does not name it")


def test_an_adapter_of_another_model_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(adaptable(width=4))
    refused(folder, "another shape")
    (folder / "model.onnx").write_bytes(model(graph([node("Relu", ["x"])])))
    refused(folder, "more than the 0 matrices")


def test_adapters_of_several_models_are_refused(folder: Path) -> None:
    config = {"model": {"decoder": {"filename": "model.onnx"}, "vision": {"filename": "other.onnx"}}}
    (folder / "genai_config.json").write_text(json.dumps(config))
    (folder / "other.onnx").write_bytes(adaptable())
    refused(folder, "adapters go with one model")


@given(st.data())
def test_no_byte_of_an_adapter_can_be_changed_so_that_the_look_itself_fails(data: st.DataObject) -> None:
    content = bytearray(adapter(rank=2))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    try:
        for one in parameters(bytes(content), 2):
            assert 0 <= one.begin <= one.begin + one.size <= len(content)
    except MalformedError:
        pass
