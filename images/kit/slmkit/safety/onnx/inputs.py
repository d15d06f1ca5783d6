"""Inputs of a model that need not be given, since the model holds a value for each: where an adapter's matrices go."""

import mmap
from pathlib import Path
from typing import NamedTuple

from slmkit.safety.onnx.schema import ONNX
from slmkit.safety.onnx.wire import MalformedError, Reader, Span

FIELDS = 2_000_000
TEXT = 64 << 20
Extent = int | str
"""A number, or the name of one that is not fixed."""


class Place(NamedTuple):
    """What an input takes."""

    type: int
    """Of its numbers, in ONNX's count."""
    shape: tuple[Extent, ...]


def optional_inputs(path: Path) -> dict[str, Place]:
    """By name. The model is one that ``check_onnx`` has let pass."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = Reader(content, ONNX, FIELDS, TEXT)
        whole = Span(0, len(content))
        graph = next(value for field, value in reader.message("Model", whole) if field.name == "graph")
        given, held = {}, set()
        for field, value in reader.message("Graph", graph):
            if field.name == "given":
                name, place = _given(reader, value)
                given[name] = place
            elif field.name == "initializer":
                held |= {reader.text(text) for part, text in reader.message("Tensor", value) if part.name == "name"}
    return {name: place for name, place in given.items() if name in held and place is not None}


def _given(reader: Reader, span: Span) -> tuple[str, Place | None]:
    """(name, what it takes); none where that is not written, or no tensor."""
    name, place = "", None
    for field, value in reader.message("Value", span):
        if field.name == "name":
            name = reader.text(value)
        elif field.name == "type_proto":
            for part, dense in reader.message("Type", value):
                if part.name == "dense":
                    place = _dense(reader, dense)
    return name, place


def _dense(reader: Reader, span: Span) -> Place | None:
    type, shape = 0, None
    for field, value in reader.message("Dense", span):
        if field.name == "type":
            type = value
        else:
            shape = tuple(_extent(reader, extent) for _, extent in reader.message("Shape", value))
    return None if shape is None else Place(type, shape)


def _extent(reader: Reader, span: Span) -> Extent:
    for field, value in reader.message("Extent", span):
        if field.name == "value":
            return int(value)
        if field.name == "parameter":
            return reader.text(value)
    raise MalformedError("an input has an extent that is not written")
