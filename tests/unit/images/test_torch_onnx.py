"""The look at ONNX models beside the libraries that write and read them: what they write is let in."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("olive")

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from slm_quantizer.onnx import build
from slm_quantizer.pack import finish
from slmkit.run import RunFailed
from slmkit.safety import check_runtime_folder
from slmkit.safety.onnx import check_bytes, check_onnx
from slmkit.safety.onnx.beside import Beside
from slmkit.safety.onnx.wire import MalformedError
from slmops.contract import QuantizeRun, Reason, Sink, Source
from tests.unit.images.toys import saved

NOWHERE = Beside(Path("/nowhere"))
NOT_OURS = ("ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in PyTorch."""
    return saved(tmp_path_factory.mktemp("original"))


@pytest.mark.parametrize("precision", ["FP32", "INT8", "INT4"])
def test_what_the_model_builder_makes_is_let_in(original: Path, tmp_path: Path, precision: str) -> None:
    run = QuantizeRun.model_validate({"run": "r", "model": Source(uri="oci://r.example/m"), "name": "m", "variant": "v",
                                      "precision": precision, "output": Sink(repository="r.example/x")})  # fmt: skip
    made = build(original, run, None, tmp_path)
    finish(made, run)
    check_runtime_folder(made)
    data = made / "model.onnx.data"
    with data.open("r+b") as file:
        file.truncate(data.stat().st_size - 1)
    with pytest.raises(RunFailed, match="ends before the external data") as failed:
        check_runtime_folder(made)
    assert failed.value.reason is Reason.UNSAFE_SOURCE


def test_operators_of_every_kind_that_the_library_tests_are_read() -> None:
    """All of its own examples: every operator, every type, graphs in graphs, functions, sparse tensors."""
    cases = collect_testcases(None)
    refused = []
    for case in cases:
        try:
            check_bytes(case.model.SerializeToString(), NOWHERE)
        except MalformedError as error:
            refused.append((case, str(error)))
    assert len(cases) > 1500
    for case, words in refused:
        domains = {opset.domain for opset in case.model.opset_import}
        old = any(opset.domain == "" and opset.version < 7 for opset in case.model.opset_import)
        assert old or domains & set(NOT_OURS), (case.name, words)


def small(*nodes: Any, tensors: tuple[Any, ...] = (), **more: Any) -> Any:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(list(nodes), "g", [value], [], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], **more)


def test_external_data_as_the_library_writes_it_is_let_in(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.arange(4096, dtype=np.float32).reshape(64, 64), "w")
    model = small(helper.make_node("MatMul", ["x", "w"], ["y"]), tensors=(weights,))
    onnx.save_model(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )
    assert check_onnx(tmp_path / "model.onnx") == {tmp_path / "model.onnx.data"}


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd"])
def test_what_reaches_out_of_the_folder_is_refused_as_the_library_does(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    tensor = TensorProto(name="w", dims=[6], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(small(tensors=(tensor,)).SerializeToString())
    with pytest.raises(RunFailed, match="is no name of a file"):
        check_onnx(folder / "model.onnx")
    with pytest.raises(Exception, match=r"(?i)outside|absolute"):
        onnx.load(folder / "model.onnx")


def test_a_bomb_of_the_librarys_own_making_is_refused(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], dtype=np.int64), "s")
    model = small(helper.make_node("ConstantOfShape", ["s"], ["y"]), tensors=(shape,))
    onnx.checker.check_model(model)
    with pytest.raises(MalformedError, match="ConstantOfShape makes more than"):
        check_bytes(model.SerializeToString(), NOWHERE)
