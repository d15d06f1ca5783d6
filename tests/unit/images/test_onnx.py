"""ONNX models: what reaches beyond its folder, runs something, or takes all memory is refused before anything parses it."""

import contextlib
import os
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.run import RunFailed
from slmkit.safety import check_model_folder
from slmkit.safety import onnx as module
from slmkit.safety.onnx import check_bytes, check_onnx
from slmkit.safety.onnx.beside import Beside
from slmkit.safety.onnx.wire import MalformedError
from slmops.contract import Reason
from tests.unit.images.onnxbytes import (
    GOOD,
    INT64,
    STRING,
    WEIGHTS,
    attribute,
    function,
    graph,
    message,
    model,
    node,
    numbers,
    outside,
    place,
    tensor,
    varint,
)

NOWHERE = Beside(Path("/nowhere"))


def refused(path: Path, *words: str) -> None:
    with pytest.raises(RunFailed) as failed:
        check_onnx(path)
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert failed.value.message.startswith(f"{path.name}: ")
    for word in words:
        assert word in failed.value.message


def malformed(content: bytes, *words: str) -> None:
    with pytest.raises(MalformedError) as error:
        check_bytes(content, NOWHERE)
    for word in words:
        assert word in str(error.value)


def of(*nodes: bytes, tensors: tuple[bytes, ...] = ()) -> bytes:
    return model(graph(nodes, tensors))


def test_a_plain_model_passes_and_names_its_data(tmp_path: Path) -> None:
    path = place(tmp_path)
    assert check_onnx(path) == {tmp_path / "model.onnx.data"}
    check_model_folder(tmp_path)


def test_weights_may_begin_as_anything(tmp_path: Path) -> None:
    """A pickle's first bytes are ordinary numbers where a model says that there are numbers."""
    place(tmp_path, data=b"\x80\x04" + WEIGHTS[2:])
    check_model_folder(tmp_path)
    (tmp_path / "model.onnx").write_bytes(of())
    with pytest.raises(RunFailed, match=r"model\.onnx\.data: is a pickle"):
        check_model_folder(tmp_path)


# --- files beside it


@pytest.mark.parametrize(
    "location",
    ["../model.onnx.data", "/etc/passwd", "sub/../../x", "..", ".", "", "./model.onnx.data", "sub//x", "~/x", "C:\\x",
     "a\\b", "*/_ORT_MEM_ADDR_/*", "file:///etc/passwd", "model.onnx.data\x00", "model.onnx.data\n", ".hidden", "a/b/c/d/e",
     "\udcff"],
)  # fmt: skip
def test_external_data_lies_in_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "model.onnx.data").write_bytes(WEIGHTS)
    told = message((1, "location"), (2, location.encode("utf-8", "surrogateescape")))
    content = of(tensors=(tensor("w", [6], (13, told), (14, 1)),))
    (tmp_path / "m").mkdir()
    refused(place(tmp_path / "m", content), "is no name of a file in the model's folder")


@pytest.mark.parametrize("what", ["nothing", "a link", "a link of the folder", "a hard link", "a folder", "a pipe"])
def test_external_data_is_a_plain_file(tmp_path: Path, what: str) -> None:
    path = place(tmp_path / "m", model(graph((), [outside("w", [6], {"location": "sub/w"})])))
    other, data = tmp_path / "secret", tmp_path / "m" / "sub" / "w"
    other.write_bytes(WEIGHTS)
    if what == "a link of the folder":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "w").write_bytes(WEIGHTS)
        data.parent.symlink_to(tmp_path / "elsewhere")
    else:
        data.parent.mkdir()
    if what == "a link":
        data.symlink_to(other)
    elif what == "a hard link":
        data.hardlink_to(other)
    elif what == "a folder":
        data.mkdir()
    elif what == "a pipe":
        os.mkfifo(data)
    words = {"nothing": "is not there", "a link of the folder": "is a link", "a folder": "no plain file",
             "a pipe": "no plain file"}  # fmt: skip
    refused(path, words.get(what, f"is {what}"))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"offset": 4}, "ends before the external data at 4"),
        ({"offset": 1 << 50}, "ends before the external data"),
        ({"offset": -24}, "'-24' is no place"),
        ({"offset": "1" * 19}, "is no place"),
        ({"offset": "0x10"}, "is no place"),
        ({"length": 23}, "not as many as the tensor's shape says, 24"),
        ({"length": 25}, "not as many"),
        ({"length": 0}, "not as many"),
        ({"prepacked_0": "x"}, "'prepacked_0', which is not known"),
        ({"basepath": "/"}, "'basepath', which is not known"),
    ],
)
def test_external_data_is_where_and_as_long_as_it_is_said(tmp_path: Path, told: dict[str, object], words: str) -> None:
    content = model(graph((), [outside("w", [2, 3], {"location": "model.onnx.data"} | told)]))
    refused(place(tmp_path, content), words)


def test_data_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    refused(
        place(tmp_path, data=WEIGHTS[:-1]), "model.onnx.data ends before the external data at 0: cut off, or forged"
    )


def test_a_few_bytes_do_not_stand_for_many_weights(tmp_path: Path) -> None:
    def shared(times: int) -> bytes:
        return model(graph((), [outside(f"w{n}", [6], {"location": "model.onnx.data"}) for n in range(times)]))

    check_onnx(place(tmp_path / "tied", shared(8)))
    refused(place(tmp_path / "bomb", shared(9)), "used more than 8 times over")


def test_data_that_is_said_twice_is_refused() -> None:
    told = {"location": "model.onnx.data"}
    doubled = message((1, "location"), (2, "other"))
    for bad in (outside("w", [6], told, (9, WEIGHTS)), tensor("w", [6], (9, WEIGHTS), (13, doubled))):
        malformed(of(tensors=(bad,)), "is in the model and beside it")
    malformed(of(tensors=(outside("w", [6], told, (13, doubled)),)), "external data has 'location' twice")


# --- tensors

F = struct.pack("<f", 1.0)
TENSORS: dict[str, tuple[bytes, str]] = {
    "2**40 elements and no data": (tensor("w", [1 << 20, 1 << 20]), "not as long as its shape says"),
    "one number for many": (tensor("w", [1 << 30], (9, F)), "not as long"),
    "more than its shape": (tensor("w", [1], (9, F + F)), "not as long"),
    "half a number": (tensor("w", [1], (9, F[:2])), "not as long"),
    "floats in two places": (tensor("w", [1], (9, F), (4, F)), "not as long"),
    "too few of a list": (tensor("w", [3], (4, F + F)), "not as long"),
    "in another list": (tensor("w", [2], (7, varint(1) + varint(2))), "not as long"),
    "too few varints": (tensor("w", [3], (7, varint(1) + varint(1 << 40)), type=INT64), "not as long"),
    "a varint that is cut off": (tensor("w", [1], (7, b"\xff"), type=INT64), "a number is cut off"),
    "a float that is cut off": (tensor("w", [1], (4, F[:3])), "a number is cut off"),
    "too few texts": (tensor("w", [3], (6, "a"), type=STRING), "not as long"),
    "texts as bytes": (tensor("w", [1], (9, b"a"), type=STRING), "not as long"),
    "a negative extent": (tensor("w", [-1]), "a shape that no tensor has"),
    "an extent that overflows": (tensor("w", [1 << 62, 4, 0]), "a shape that no tensor has"),
    "many dimensions": (tensor("w", [1] * 9, (9, F)), "more than 8 dimensions"),
    "no type": (tensor("w", [1], (9, F), type=0), "of no known type"),
    "a type of tomorrow": (tensor("w", [1], (9, F), type=99), "of no known type"),
    "segments": (tensor("w", [1], (9, F), (3, message((1, 0), (2, 1)))), "in segments"),
    "another place": (tensor("w", [1], (9, F), (14, 7)), "not as long"),
}


@pytest.mark.parametrize("forged", TENSORS)
def test_a_tensor_is_as_long_as_its_shape_says(forged: str) -> None:
    bad, words = TENSORS[forged]
    malformed(of(tensors=(bad,)), words)
    malformed(of(node("Constant", [], ["c"], attribute("value", (5, bad)))), words)


@pytest.mark.parametrize(
    "good",
    [
        tensor("w", [], (9, F)), tensor("w", [0]), tensor("w", [0, 7], (9, b"")), tensor("w", [2], (4, F + F)),
        message((1, 2), (2, 1), (4, 1.0), (4, 2.0)), tensor("w", [2], (6, "a"), (6, ""), type=STRING),
        tensor("w", [3], (9, b"\x12\x03"), type=22), tensor("w", [3], (5, varint(1) * 2), type=22),
        tensor("w", [2], (7, varint(-1) + varint(300)), type=INT64), tensor("w", [2], (5, varint(7) * 2), type=10),
        tensor("w", [1], (4, F + F), type=14), tensor("w", [1], (10, bytes(16)), type=15),
        message((1, varint(2) + varint(3)), (2, 1), (9, bytes(24))),
    ],
    ids=["a number", "nothing", "nothing in two dimensions", "a list", "a list one by one", "texts", "four bits",
         "four bits in a list", "whole numbers", "halves", "complex", "complex and double", "dimensions in one"],
)  # fmt: skip
def test_a_tensor_in_any_form_that_libraries_write_passes(good: bytes) -> None:
    check_bytes(of(tensors=(good,)), NOWHERE)


# --- operators


@pytest.mark.parametrize(
    ("op", "domain", "shown"),
    [
        ("PyOp", "ai.onnx.contrib", "ai.onnx.contrib.PyOp"), ("Mine", "com.example", "com.example.Mine"),
        ("EPContext", "com.microsoft", "com.microsoft.EPContext"), ("ATen", "org.pytorch.aten", "org.pytorch.aten.ATen"),
        ("PythonOp", "com.microsoft", "com.microsoft.PythonOp"), ("Adam", "ai.onnx.preview.training", "training.Adam"),
        ("Add", "com.microsoft\u0000", "com.microsoft"), ("Add", "COM.MICROSOFT", "COM.MICROSOFT"),
        ("Gelu", "com.microsoft.nchwc", "com.microsoft.nchwc.Gelu"),
    ],
)  # fmt: skip
def test_an_operator_that_somebody_else_brings_is_refused_by_its_name(op: str, domain: str, shown: str) -> None:
    custom = node(op, ["x"], domain=domain)
    branch = node("If", ["x"], ["y"], attribute("then_branch", (6, graph([custom])), (20, 5)))
    for content in (of(custom), of(branch), model(graph([node("f", domain="own")]), function("f", [custom]))):
        malformed(content, "operator", shown, "is not one that ONNX Runtime has itself")


def test_an_operator_that_the_model_defines_itself_passes() -> None:
    uses = node("f", ["x"], domain="own")
    check_bytes(model(graph([uses]), function("f", [node("Add", ["a", "b"])]), opsets={"": 21, "own": 1}), NOWHERE)
    malformed(model(graph([uses]), function("f", []), function("f", [])), "own.f is there twice")
    malformed(model(graph([node("g", domain="own")]), function("f", [])), "operator own.g")


@pytest.mark.parametrize(
    ("opsets", "good"),
    [({"": 6}, False), ({"": 7}, True), ({"": 30}, True), ({"": 31}, False), ({"ai.onnx": 1 << 40}, False),
     ({"": 21, "com.example": 5}, True), ({"": 21, "com.example": -1}, False), ({"": 21, "com.microsoft": 2}, True)],
)  # fmt: skip
def test_versions_of_operators_are_those_of_the_runtime(opsets: dict[str, int], good: bool) -> None:
    content = model(graph([node("Add", ["x", "x"])]), opsets=opsets)
    if good:
        check_bytes(content, NOWHERE)
    else:
        malformed(content, "version", "is not between")
    malformed(
        model(graph([node("Gelu", domain="com.microsoft")]), opsets={"": 21, "com.microsoft": 2}), "between 1 and 1"
    )


@pytest.mark.parametrize("version", [0, 2, 16, -1])
def test_the_format_has_a_version(version: int) -> None:
    malformed(model(graph(), version=version), f"IR version {version} is not between 3 and 15")


# --- bombs


def nested(levels: int) -> bytes:
    inner = graph([node("Add", ["x", "x"])])
    for _ in range(levels - 1):
        inner = graph([node("If", ["c"], ["y"], attribute("then_branch", (6, inner), (20, 5)))])
    return model(inner)


def test_graphs_in_graphs_end() -> None:
    check_bytes(nested(8), NOWHERE)
    malformed(nested(9), "graphs lie more than 8 deep")
    malformed(nested(3000), "graphs lie more than 8 deep")


def test_types_in_types_end() -> None:
    kind = message((1, message((1, 1))))
    for _ in range(2000):
        kind = message((4, message((1, kind))))
    malformed(model(graph((), (), (11, message((1, "x"), (2, kind))))), "messages lie more than 64 deep")


def chain(functions: int, calls: int = 2) -> bytes:
    """Each function calls the next one twice: so many bytes become two to that power."""
    bodies = [
        function(f"f{n}", [node(f"f{n + 1}", domain="own") if n + 1 < functions else node("Add", ["a", "a"])] * calls)
        for n in range(functions)
    ]
    return model(graph([node("f0", domain="own")]), *bodies, opsets={"": 21, "own": 1})


def test_functions_that_unfold_without_end_are_refused() -> None:
    check_bytes(chain(10), NOWHERE)
    malformed(chain(20), "unfold to more than 200000 nodes")
    malformed(chain(33, calls=1), "call each other more than 32 deep")
    for body in ([node("f", domain="own")], [node("g", domain="own")]):
        again = function("g", [node("f", domain="own")])
        malformed(model(graph([node("f", domain="own")]), function("f", body), again), "call each other more than")


def test_a_graph_of_very_many_nodes_is_refused() -> None:
    began = time.process_time()
    malformed(of(*[node("Add", ["x", "x"])] * 200_001), "more than 200000 nodes")
    assert time.process_time() - began < 20


def test_there_are_only_so_many_fields_and_so_much_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIELDS", 1000)
    monkeypatch.setattr(module, "TEXT", 1000)
    check_bytes(of(node("Add", ["x"] * 900)), NOWHERE)
    malformed(of(node("Add", [""] * 1001)), "more than 1000 fields")
    malformed(model(graph((), (), (16, b""), *[(16, b"")] * 1000)), "more than 1000 fields")
    malformed(of(node("Add", [], ["y"], attribute("axes", *[(8, 1)] * 1000))), "more than 1000 fields")
    malformed(of(node("Add", [], ["y"], attribute("axes", (8, varint(1) * 1000)))), "more than 1000 fields")
    malformed(of(node("Add", ["x" * 1001])), "too much text")
    malformed(of(node("x" * 999)), "too much text")


def test_a_file_beyond_all_measure_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)  # sparse
    refused(path, "larger than 2147483647 bytes")


BIG = 1 << 40
SHAPE = numbers("s", BIG)
FLOATS = struct.pack("<2f", 1.0, 1e12)
BOMBS: dict[str, bytes] = {
    "ConstantOfShape": of(node("ConstantOfShape", ["s"]), tensors=(SHAPE,)),
    "ConstantOfShape of a list": of(node("ConstantOfShape", ["s"]), tensors=(
        tensor("s", [2], (7, varint(1 << 20) * 2), type=INT64),)),
    "ConstantOfShape of a node": of(
        node("Constant", [], ["s"], attribute("value", (5, SHAPE), (20, 4))), node("ConstantOfShape", ["s"])),
    "ConstantOfShape of numbers": of(
        node("Constant", [], ["s"], attribute("value_ints", (8, BIG), (8, 1), (20, 7))), node("ConstantOfShape", ["s"])),
    "a shape in pieces": of(
        node("Cast", ["a"], ["b"]), node("Concat", ["b", "a"], ["s"]), node("Unsqueeze", ["s"], ["t"]),
        node("ConstantOfShape", ["t"]), tensors=(numbers("a", 1 << 20),)),
    "a shape that is computed": of(
        node("Mul", ["a", "a"], ["s"]), node("ConstantOfShape", ["s"]), tensors=(numbers("a", 1 << 20),)),
    "in a branch": of(
        node("If", ["x"], ["y"], attribute("then_branch", (6, graph([node("ConstantOfShape", ["s"])])), (20, 5))),
        tensors=(SHAPE,)),
    "in a function": model(graph([node("f", domain="own")]), function("f", [
        node("Constant", [], ["s"], attribute("value_int", (3, BIG), (20, 2))), node("ConstantOfShape", ["s"])])),
    "Expand": of(node("Expand", ["x", "s"]), tensors=(SHAPE,)),
    "Expand of both": of(node("Expand", ["a", "b"]), tensors=(
        tensor("a", [1 << 18, 1], (9, bytes(4 << 18))), numbers("b", 1, 1 << 18))),
    "Tile": of(node("Tile", ["x", "r"]), tensors=(numbers("r", 1 << 20, 1 << 20),)),
    "Tile, twice": of(
        node("Tile", ["a", "r"], ["b"]), node("Tile", ["b", "r"], ["c"]), tensors=(numbers("r", 1 << 16), numbers("a", 1))),
    "Range": of(node("Range", ["a", "b", "c"]), tensors=(numbers("a", 0), numbers("b", BIG), numbers("c", 1))),
    "Range of small steps": of(node("Range", ["a", "b", "c"]), tensors=(
        tensor("a", [], (9, bytes(4))), tensor("b", [], (9, struct.pack("<f", 3e38))), tensor("c", [], (9, b"\1\0\0\0")))),
    "Concat, doubling": of(
        *(node("Concat", [f"a{n}", f"a{n}"], [f"a{n + 1}"]) for n in range(40)), tensors=(numbers("a0", *range(65)),)),
    "Pad": of(node("Pad", ["x", "p"]), tensors=(numbers("p", 0, BIG),)),
    "Pad of an attribute": of(node("Pad", ["x"], ["y"], attribute("pads", (8, 0), (8, BIG), (20, 7)))),
    "Resize to a size": of(node("Resize", ["x", "", "", "s"]), tensors=(SHAPE,)),
    "Resize by a factor": of(node("Resize", ["x", "", "f"]), tensors=(tensor("f", [2], (9, FLOATS)),)),
    "Upsample": of(node("Upsample", ["x", "f"]), tensors=(tensor("f", [2], (9, FLOATS)),)),
    "OneHot": of(node("OneHot", ["x", "s", "v"]), tensors=(SHAPE,)),
    "random numbers": of(node("RandomNormal", [], ["y"], attribute("shape", (8, BIG), (20, 7)))),
    "an outer sum": of(node("Unsqueeze", ["a", "o"], ["b"]), node("Add", ["a", "b"]), tensors=(
        numbers("o", 1), tensor("a", [1 << 16], (9, bytes(4 << 16))))),
    "an outer product": of(node("MatMul", ["a", "b"]), tensors=(
        tensor("a", [1 << 16, 1], (9, bytes(4 << 16))), tensor("b", [1, 1 << 16], (9, bytes(4 << 16))))),
    "a sparse tensor": of(node("Constant", [], ["y"], attribute("sparse_value", (22, message((3, BIG)))))),
    "a loop": of(node("Loop", ["n", "c"]), tensors=(numbers("n", BIG),)),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_constants_make_no_more_than_memory_holds(bomb: str) -> None:
    malformed(
        BOMBS[bomb], "a loop of more than 1048576 rounds" if bomb == "a loop" else "more than 1073741824 elements"
    )


def test_what_models_make_of_constants_passes() -> None:
    """A mask over a context, a table of positions, and shapes that only the question tells."""
    mask = numbers("s", 1, 1, 4096, 4096)
    check_bytes(of(node("ConstantOfShape", ["s"]), node("Trilu", ["y"], ["z"]), tensors=(mask,)), NOWHERE)
    check_bytes(of(node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"])), NOWHERE)
    check_bytes(of(node("Expand", ["x", "s"]), tensors=(numbers("s", 1, -1, 1),)), NOWHERE)
    positions = (numbers("a", 0), numbers("b", 131_072), numbers("c", 1))
    check_bytes(of(node("Range", ["a", "b", "c"]), tensors=positions), NOWHERE)
    check_bytes(of(node("Loop", ["n", "c"]), tensors=(numbers("n", 100),)), NOWHERE)


@pytest.mark.parametrize("op", ["RandomNormal", "Pad", "Unsqueeze", "Constant", "ConstantOfShape", "Reshape"])
@pytest.mark.parametrize("part", [(3, 5), (2, 1.0), (4, "x"), (8, -1), (5, numbers("a")), (6, graph())])
def test_attributes_of_another_type_are_none_of_ours(op: str, part: tuple[int, int]) -> None:
    names = ("shape", "pads", "axes", "value")
    check_bytes(
        of(node(op, ["a", "a"], ["y"], *(attribute(name, part) for name in names)), tensors=(numbers("a", 1),)), NOWHERE
    )


def test_numbers_that_grow_with_each_node_take_no_time() -> None:
    squares = [node("Mul", [f"a{n}", f"a{n}"], [f"a{n + 1}"]) for n in range(5000)]
    began = time.process_time()
    check_bytes(of(*squares, tensors=(numbers("a0", 3),)), NOWHERE)
    check_bytes(of(node("Add", [], ["y"], attribute("axes", *[(8, 1)] * 200_000))), NOWHERE)
    assert time.process_time() - began < 10


# --- bytes

BYTES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "holds no graph"),
    "no graph": (message((1, 10)), "holds no graph"),
    "a text": (b"hello, I am a model", "is not known"),
    "a graph that is cut off": (GOOD[:-1], "cut off, or forged"),
    "a length that is cut off": (GOOD + b"\x72\xff", "a number is cut off"),
    "a number that is cut off": (b"\x08", "a number is cut off"),
    "a number of many bytes": (b"\x08" + b"\x80" * 10 + b"\1", "more than ten bytes"),
    "a field of tomorrow": (GOOD + message((99, 1)), "has a field 99"),
    "field 0": (b"\0\0", "has a field 0"),
    "a number as a text": (message((1, "10")), "of another type"),
    "a graph as a number": (message((1, 10), (7, 5)), "of another type"),
    "a group": (b"\x0b\x0c", "of another type"),
    "eight bytes": (b"\x09" + bytes(8), "of another type"),
    "two graphs": (GOOD + message((7, graph())), "Model has graph twice"),
    "a name of many bytes": (of(node("x" * 5000)), "a name of more than 4096 bytes"),
    "two types of a tensor": (of(tensors=(tensor("w", [1], (9, F), (2, 7)),)), "Tensor has type twice"),
    "instructions for training": (GOOD + message((20, b"")), "instructions for training"),
    "a float that is cut off": (of(node("Elu", [], ["y"], b"\x15\0")), "float of Attribute is cut off"),
}


@pytest.mark.parametrize("forged", BYTES)
def test_what_is_no_model_is_refused(tmp_path: Path, forged: str) -> None:
    content, words = BYTES[forged]
    path = place(tmp_path, content)
    refused(path, words if content else "is empty")
    with pytest.raises(RunFailed, match=r"model\.onnx"):
        check_model_folder(tmp_path)


def looked_at(content: bytes) -> None:
    """Refused or not, but never anything else."""
    with contextlib.suppress(MalformedError):
        check_bytes(content, NOWHERE)


@settings(derandomize=True)
@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_read_or_refused(content: bytes) -> None:
    looked_at(content)


MODELS = [GOOD, chain(4), nested(4), *BOMBS.values(), *(of(tensors=(bad,)) for bad, _ in TENSORS.values())]
MODELS = [content for content in MODELS if len(content) < 4000]


@settings(derandomize=True, max_examples=300)
@given(st.data())
def test_models_with_a_byte_or_two_of_another_kind_are_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(MODELS)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(("another", "less", "more", "end")))
        if how == "another":
            content[at] = data.draw(st.integers(0, 255))
        elif how == "less" and len(content) > 1:
            del content[at]
        elif how == "more":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        elif at:
            del content[at:]
    looked_at(bytes(content))
