"""Tensors in a model: as long as their shape says, held in one place."""

import math
import struct
from dataclasses import dataclass, field

from slmkit.safety.onnx.beside import Beside
from slmkit.safety.onnx.wire import MalformedError, Reader, Span
from slmkit.safety.weights import RANK

EXTENT = 1 << 40
"""Of one dimension."""
SMALL = 64
"""Elements of a tensor whose values are read: shapes and the like."""
STRING = 8
BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
        17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6}  # fmt: skip
"""Of an element, by the number of its type; texts (8) have none."""
HELD = {1: "float_data", 14: "float_data", 11: "double_data", 15: "double_data", 7: "int64_data", 12: "uint64_data",
        13: "uint64_data"}  # fmt: skip
"""Where a type's numbers are, if not in ``int32_data``."""
COMPLEX = (14, 15)
"""Two numbers each."""
LETTER = {1: "f", 2: "B", 3: "b", 4: "H", 5: "h", 6: "i", 7: "q", 9: "B", 11: "d", 12: "I", 13: "Q"}
"""How ``struct`` calls the types whose values are read."""


@dataclass(frozen=True)
class Known:
    """What is known of a value before anything runs."""

    elements: int
    """At least so many."""
    shape: tuple[int, ...] | None = None
    values: tuple[float, ...] | None = None
    """Of a small one, in their order."""


@dataclass
class _Read:
    """A tensor's fields."""

    name: str = ""
    shape: list[int] = field(default_factory=list)
    type: int = 0
    location: int = 0
    external: dict[str, str] = field(default_factory=dict)
    held: dict[str, list[Span]] = field(default_factory=dict)
    """Where its numbers are, by field (``raw`` is one); the first places of each."""
    counts: dict[str, int] = field(default_factory=dict)


def tensor(reader: Reader, span: Span, beside: Beside) -> tuple[str, Known]:
    """A tensor's name, and what is known of it. Raises MalformedError."""
    read = _read(reader, span)
    if read.type not in BITS and read.type != STRING:
        raise MalformedError(f"tensor {read.name[:64]!r} is of no known type")
    if len(read.shape) > RANK or not all(0 <= extent <= EXTENT for extent in read.shape):
        raise MalformedError(f"tensor {read.name[:64]!r} has a shape that no tensor has")
    elements = math.prod(read.shape)
    need = math.ceil(elements * BITS.get(read.type, 0) / 8)
    known = Known(elements, tuple(read.shape))
    if read.location == 1 or read.external:
        if read.held or read.location != 1 or read.type == STRING:
            raise MalformedError(f"tensor {read.name[:64]!r} is in the model and beside it")
        path, offset = beside.data(read.external, need)
        if elements > SMALL:
            return read.name, known
        with path.open("rb") as file:
            file.seek(offset)
            return read.name, _with_values(known, read.type, file.read(need))
    if read.location or len(read.held) > 1 or not _complete(read, elements, need):
        raise MalformedError(f"tensor {read.name[:64]!r} is not as long as its shape says")
    return read.name, known if elements > SMALL else _with_values(known, read.type, _bytes(reader, read))


def _read(reader: Reader, span: Span) -> _Read:
    read = _Read()
    for found, value in reader.message("Tensor", span):
        if found.name == "dim":
            read.shape.append(value)
            if len(read.shape) > RANK:
                raise MalformedError(f"a tensor has more than {RANK} dimensions")
        elif found.name == "name":
            read.name = reader.text(value)
        elif found.name == "type":
            read.type = value
        elif found.name == "location":
            read.location = value
        elif found.name == "segment":
            raise MalformedError("a tensor is stored in segments, which nobody reads")
        elif found.name == "external":
            _pair(reader, value, read.external)
        elif found.name == "metadata":
            for _ in reader.message("Pair", value):
                pass
        elif found.name == "raw" or found.name.endswith("_data"):
            kept = read.held.setdefault(found.name, [])
            if len(kept) < SMALL:
                kept.append(value)
            one = found.name == "string_data"
            count = 1 if one else len(value) if found.name == "raw" else reader.count(found.kind, value)
            read.counts[found.name] = read.counts.get(found.name, 0) + count
    return read


def _pair(reader: Reader, span: Span, into: dict[str, str]) -> None:
    pair = {found.name: value for found, value in reader.message("Pair", span)}
    key = reader.text(pair.get("key", Span(0, 0)))
    if key in into:
        raise MalformedError(f"external data has {key[:64]!r} twice")
    into[key] = reader.text(pair.get("value", Span(0, 0)))


def _complete(read: _Read, elements: int, need: int) -> bool:
    """Whether what the model holds of a tensor is as much as its shape says."""
    [[where, count]] = read.counts.items() or [("", 0)]
    if where == "raw":
        return read.type != STRING and count == need
    if where in ("", "string_data"):
        return count == elements and (read.type == STRING or not elements)
    # Numbers of less than a byte are several in one, or one in each.
    numbers = {elements * 2} if read.type in COMPLEX else {elements, need} if BITS.get(read.type, 8) < 8 else {elements}
    return where == HELD.get(read.type, "int32_data") and count in numbers


def _bytes(reader: Reader, read: _Read) -> bytes:
    """The values of a small tensor as bytes; empty where they are of no use."""
    if "raw" in read.held:
        return reader.bytes(read.held["raw"][0])
    letter = LETTER.get(read.type)
    if letter is None:
        return b""
    out = b""
    for where, spans in read.held.items():
        for span in spans:
            if where in ("float_data", "double_data"):
                out += reader.bytes(span)
            else:
                mask = (1 << BITS[read.type]) - 1
                size = BITS[read.type] // 8
                out += b"".join((value & mask).to_bytes(size, "little") for value in reader.numbers(span))
    return out


def _with_values(known: Known, type: int, raw: bytes) -> Known:
    letter = LETTER.get(type)
    if letter is None or len(raw) != known.elements * struct.calcsize(f"<{letter}"):
        return known
    values = struct.unpack(f"<{known.elements}{letter}", raw)
    return Known(known.elements, known.shape, values if all(map(math.isfinite, values)) else None)
