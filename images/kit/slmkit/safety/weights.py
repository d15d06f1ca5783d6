"""Safetensors, by the format's description: eight bytes of length, a JSON header, the tensors side by side."""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from slmkit.run import RunFailed
from slmkit.safety.text import parse, read_object, unsafe
from slmops.contract import Reason

HEADER_LIMIT = 32 << 20
"""Bytes, a third of what the format allows: a thousand billion weights in one file need some 20 million."""
RANK = 8
"""Dimensions of a tensor."""
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
        "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
        "C64": 64}  # fmt: skip


class Tensor(NamedTuple):
    """A tensor in a checked file."""

    name: str
    dtype: str
    """In the format's words: F32, BF16."""
    shape: tuple[int, ...]
    path: Path
    begin: int
    end: int

    def content(self) -> bytes:
        """Its numbers, as they lie in the file."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            return file.read(self.end - self.begin)


def tensors(path: Path) -> Iterator[Tensor]:
    """The tensors of a checked file, in the order of their names."""
    with path.open("rb") as file:
        start = 8 + struct.unpack("<Q", file.read(8))[0]
    for name, told in sorted(_header(path).items()):
        if name != "__metadata__":
            begin, end = told["data_offsets"]
            yield Tensor(name, told["dtype"], tuple(told["shape"]), path, start + begin, start + end)


def parameters(folder: Path) -> int:
    """Numbers in all safetensors files of a checked folder. Weights that two layers share are counted once: the format
    holds them once."""
    return sum(math.prod(tensor.shape) for path in folder.glob("*.safetensors") for tensor in tensors(path))


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        found = parse(file.read(struct.unpack("<Q", file.read(8))[0]))
    assert isinstance(found, dict)
    return found


def check_safetensors(path: Path) -> None:
    """The header is bounded, each tensor as long as its shape says, and they lie side by side to the file's end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(8)
        length = struct.unpack("<Q", raw)[0] if len(raw) == 8 else size
        if length > min(HEADER_LIMIT, size - 8):
            raise unsafe(path, "not a safetensors file, or a forged header")
        try:
            header = parse(file.read(length))
            spans = sorted(_span(path, name, tensor) for name, tensor in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise unsafe(path, "the header is not understood") from None
    end = 0
    for begin, stop in spans:
        if begin != end or stop < begin:
            raise unsafe(path, "tensors overlap or leave gaps")
        end = stop
    if end != size - 8 - length:
        raise unsafe(path, "data and header do not fit together")


def _span(path: Path, name: str, tensor: Any) -> tuple[int, int]:
    begin, stop = tensor["data_offsets"]
    shape = tensor["shape"]
    if not all(type(number) is int and number >= 0 for number in (begin, stop, *shape)):
        raise TypeError
    if len(shape) > RANK:
        raise unsafe(path, f"tensor {name[:64]!r} has more than {RANK} dimensions")
    bits = BITS.get(tensor["dtype"])
    if bits is not None and math.prod(shape) * bits != (stop - begin) * 8:
        raise unsafe(path, f"tensor {name[:64]!r} is not as long as its shape says")
    return begin, stop


def check_index(path: Path) -> None:
    """Weights in several files: loaders open what the index names, so it names files that were looked at here."""
    names = read_object(path).get("weight_map")
    for name in names.values() if isinstance(names, dict) else [None]:
        if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors"):
            raise unsafe(path, f"{name!r} is not the name of a safetensors file")
        if not (path.parent / name).is_file():
            raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{path.name} names {name}, which is not there")
