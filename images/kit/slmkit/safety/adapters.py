"""Adapters beside a model: ``adapters.json`` names them, and each is a file of matrices for inputs that the model has.

ONNX Runtime maps such a file into memory and gives each matrix to the input of its name, whichever that is: one that is
called as the tokens are answers in place of the question. A shape that does not fit shows when somebody asks. Whether a
matrix is as long as its shape says it looks at since lately only; before, a forged one was read beyond the file. So what it
would be given is looked at here.

The format is a FlatBuffer (flatbuffers.dev, "Internals"; ``adapter_schema.fbs`` of ONNX Runtime): tables whose fields are
found through a list of offsets, vectors that begin with their length. It is read one number at a time, within bounds.
"""

import hashlib
import mmap
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from slmkit.safety.onnx.beside import inside
from slmkit.safety.onnx.inputs import Place, optional_inputs
from slmkit.safety.onnx.wire import MalformedError
from slmkit.safety.text import read_object, unsafe

LIST = "adapters.json"
SUFFIX = ".onnx_adapter"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
MOST = 64
"""Adapters of one model."""
FILE = (1 << 31) - 1
"""Bytes: offsets of a FlatBuffer have 31 bits."""
IDENTIFIER = b"TORT"
VERSION = 1
SIZES = {1: 4, 10: 2, 16: 2}
"""Bytes of a number, by its type: FLOAT, FLOAT16, BFLOAT16."""
RANK = 1 << 14
"""As in an ``adapter_config.json``."""
Bytes = bytes | mmap.mmap


class Parameter(NamedTuple):
    """A matrix in a file."""

    name: str
    type: int
    shape: tuple[int, ...]
    begin: int
    size: int


def listed(folder: Path) -> dict[str, Path]:
    """The adapters of a model by name; none where it has no list. Raises RunFailed for a list of no sense."""
    path = folder / LIST
    if not path.is_file():
        return {}
    told = read_object(path)
    if len(told) > MOST:
        raise unsafe(path, f"more than {MOST} adapters")
    found = {}
    for name, entry in told.items():
        file = entry.get("file") if isinstance(entry, dict) else None
        if not NAME.fullmatch(name) or not isinstance(file, str) or not file.endswith(SUFFIX):
            raise unsafe(path, f"{name[:64]!r} is no adapter with a file *{SUFFIX}")
        try:
            found[name] = inside(folder, file)
        except MalformedError as error:
            raise unsafe(path, str(error)) from None
        if entry.get("digest") != digest(found[name]):
            raise unsafe(path, f"{file} is not the file that is meant: it has another digest")
    return found


def digest(path: Path) -> str:
    """``sha256:…`` of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def check_adapters(folder: Path, models: Sequence[Path]) -> None:
    """Raise RunFailed with reason UnsafeSource unless all adapters beside a checked model fit it."""
    found = listed(folder)
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        if path not in found.values():
            raise unsafe(path, f"{LIST} does not name it")
    if found and len(models) != 1:
        raise unsafe(folder / LIST, "adapters go with one model, and there are several")
    places = optional_inputs(models[0]) if found else {}
    for path in found.values():
        check_adapter(path, places)


def check_adapter(path: Path, places: Mapping[str, Place]) -> None:
    """Raise RunFailed with reason UnsafeSource unless a file holds matrices for some of these inputs, and nothing else."""
    size = path.stat().st_size
    try:
        if not 0 < size <= FILE:
            raise MalformedError(f"larger than {FILE} bytes" if size else "is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check(content, places)
    except MalformedError as error:
        raise unsafe(path, str(error)) from None


def _check(content: Bytes, places: Mapping[str, Place]) -> None:
    ranks: dict[str, int] = {}
    """By the names that the inputs' extents have."""
    names: set[str] = set()
    total = 0
    for one in parameters(content, len(places)):
        place = places.get(one.name)
        if place is None or one.name in names:
            raise MalformedError(f"{one.name[:128]!r} is no input of the model, or is there twice")
        names.add(one.name)
        if one.type != place.type or one.type not in SIZES or len(one.shape) != len(place.shape):
            raise MalformedError(f"{one.name} is of another type than the model's input")
        elements = 1
        for extent, wanted in zip(one.shape, place.shape, strict=True):
            fits = extent == wanted if isinstance(wanted, int) else ranks.setdefault(wanted, extent) == extent
            if not fits or not 0 < extent <= (FILE if isinstance(wanted, int) else RANK):
                raise MalformedError(f"{one.name} has another shape than the model's input")
            elements *= extent
        if one.size != elements * SIZES[one.type] or one.begin % SIZES[one.type]:
            raise MalformedError(f"{one.name} is not as long as its shape says")
        total += one.size
    if total > len(content):
        raise MalformedError("its matrices lie over each other")
    # What multiplies with one half and with the default of the other would fail at each request.
    open_ = {extent for place in places.values() for extent in place.shape if isinstance(extent, str)} & ranks.keys()
    for name, place in places.items():
        if name not in names and not open_.isdisjoint(place.shape):
            raise MalformedError(f"it has no {name}, without which its other half fits nothing")
    if not names:
        raise MalformedError("it holds no matrix")


def parameters(content: Bytes, most: int) -> Iterator[Parameter]:
    """The matrices in a file. Raises MalformedError, also for more than ``most``."""
    if content[4:8] != IDENTIFIER:
        raise MalformedError("is no adapter of ONNX Runtime")
    root = _table(content, _u32(content, 0))
    if _field(content, root, 0, "<i") != VERSION:
        raise MalformedError(f"is of another version than {VERSION}")
    begin, count = _vector(content, root, 3, 4)
    if count > most:
        raise MalformedError(f"holds more than the {most} matrices that the model takes")
    for at in range(begin, begin + 4 * count, 4):
        table = _table(content, at + _u32(content, at))
        name, length = _vector(content, table, 0, 1)
        shape, rank = _vector(content, table, 1, 8)
        raw, size = _vector(content, table, 3, 1)
        if length > 4096 or rank > 8:
            raise MalformedError("a matrix has a name or a shape that none has")
        yield Parameter(
            bytes(content[name : name + length]).decode("utf-8", "replace"),
            _field(content, table, 2, "<i"),
            tuple(_read(content, shape + 8 * n, "<q") for n in range(rank)),
            raw, size,
        )  # fmt: skip


class _Table(NamedTuple):
    at: int
    fields: tuple[int, ...]
    """Offsets of its fields; 0 for one that is not there."""


def _table(content: Bytes, at: int) -> _Table:
    where = at - _read(content, at, "<i")
    size = _read(content, where, "<H")
    if not 4 <= size <= 64 or size % 2:
        raise MalformedError("a table has a list of fields that none has")
    return _Table(at, tuple(_read(content, where + 4 + 2 * n, "<H") for n in range((size - 4) // 2)))


def _field(content: Bytes, table: _Table, number: int, form: str) -> int:
    """A number that is a field; 0 where it is not there, as the format has it."""
    offset = table.fields[number] if number < len(table.fields) else 0
    return _read(content, table.at + offset, form) if offset else 0


def _vector(content: Bytes, table: _Table, number: int, width: int) -> tuple[int, int]:
    """(where its items begin, how many) of a field that is a vector, all of it in the file."""
    offset = table.fields[number] if number < len(table.fields) else 0
    if not offset:
        raise MalformedError("a field is not there that each adapter has")
    at = table.at + offset
    at += _u32(content, at)
    count = _u32(content, at)
    if at + 4 + count * width > len(content):
        raise MalformedError("is cut off, or forged")
    return at + 4, count


def _u32(content: Bytes, at: int) -> int:
    return _read(content, at, "<I")


def _read(content: Bytes, at: int, form: str) -> int:
    if not 0 <= at <= len(content) - struct.calcsize(form):
        raise MalformedError("is cut off, or forged")
    return int(struct.unpack_from(form, content, at)[0])
