"""ONNX models as bytes, by the wire format alone: also those that no library would write."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

FLOAT, INT64, STRING = 1, 7, 8
Part = tuple[int, "int | float | str | bytes"]


def varint(value: int) -> bytes:
    """A number."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(*parts: Part) -> bytes:
    """Fields in their order, by number: whole numbers as varints, others as four bytes, the rest with a length."""
    out = bytearray()
    for number, value in parts:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(raw)) + raw
    return bytes(out)


def tensor(name: str, dims: Sequence[int], *parts: Part, type: int = FLOAT) -> bytes:
    """TensorProto; ``parts`` say where its numbers are."""
    return message(*((1, extent) for extent in dims), (2, type), (8, name), *parts)


def numbers(name: str, *values: int) -> bytes:
    """A tensor of whole numbers in one dimension."""
    return tensor(name, [len(values)], (9, struct.pack(f"<{len(values)}q", *values)), type=INT64)


def outside(name: str, dims: Sequence[int], told: Mapping[str, object], *parts: Part) -> bytes:
    """A tensor of floats whose numbers are in another file."""
    pairs = ((13, message((1, key), (2, str(value)))) for key, value in told.items())
    return tensor(name, dims, *pairs, (14, 1), *parts)


def attribute(name: str, *parts: Part) -> bytes:
    """AttributeProto."""
    return message((1, name), *parts)


def node(
    op: str, inputs: Sequence[str] = (), outputs: Sequence[str] = ("y",), *attributes: bytes, domain: str = ""
) -> bytes:
    """NodeProto."""
    return message(
        *((1, name) for name in inputs), *((2, name) for name in outputs), (4, op),
        *((5, each) for each in attributes), *(((7, domain),) if domain else ()),
    )  # fmt: skip


def graph(nodes: Sequence[bytes] = (), tensors: Sequence[bytes] = (), *parts: Part) -> bytes:
    """GraphProto."""
    return message(*((1, each) for each in nodes), (2, "g"), *((5, each) for each in tensors), *parts)


def function(name: str, nodes: Sequence[bytes], domain: str = "own") -> bytes:
    """FunctionProto."""
    return message((1, name), *((7, each) for each in nodes), (10, domain))


def model(content: bytes, *functions: bytes, version: int = 10, opsets: Mapping[str, int] | None = None) -> bytes:
    """ModelProto of a graph."""
    sets = {"": 21} if opsets is None else opsets
    return message(
        (1, version), *((8, message((1, domain), (2, number))) for domain, number in sets.items()), (7, content),
        *((25, each) for each in functions),
    )  # fmt: skip


WEIGHTS = struct.pack("<6f", *range(6))
GOOD = model(
    graph(
        [node("MatMul", ["x", "w"], ["h"]), node("RMSNormalization", ["h", "s"]),
         node("MatMulNBits", ["y", "w"], ["z"], attribute("K", (20, 2), (3, 2)), domain="com.microsoft")],
        [outside("w", [2, 3], {"location": "model.onnx.data", "offset": 0, "length": 24}), tensor("s", [1], (9, bytes(4)))],
    ),
    opsets={"": 23, "com.microsoft": 1},
)  # fmt: skip
"""A model with its weights beside it."""


def place(folder: Path, content: bytes = GOOD, data: bytes = WEIGHTS) -> Path:
    """The model and its data in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "model.onnx.data").write_bytes(data)
    return folder / "model.onnx"
