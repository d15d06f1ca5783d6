"""Adapters of ONNX Runtime as bytes: also those that no library would write. And adapters in PEFT's layout."""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.unit.images.onnxbytes import FLOAT, Part, graph, message, model, node, tensor

MADE = bytes.fromhex(
    "0c000000544f525400000000acffffff0100000001000000010000000400000002000000480000000400"
    "0000ccffffff28000000180000000a0000000400000008000000000000000000000001000000040000000000000001"
    "00000062000000"
    "0c00140004000800"
    "0c0010000c000000400000002800000001000000040000001800000000000000"
    "0000803f000000400000404000008040"
    "0000a040020000000200000000000000030000000000000008000000782e77656967687400000000"
)
"""What ONNX Runtime 1.31 writes: b, four zeros in 16 bit, and x.weight, 0 to 5 in 32 bit as (2, 3)."""
FLOAT16 = 10


class Written:
    """A file of matrices, whose every part can be forged."""

    def __init__(
        self, *matrices: bytes, identifier: bytes = b"TORT", version: int = 1, count: int | None = None
    ) -> None:
        head = struct.pack("<4HHH", 12, 20, 4, 0, 0, 8)  # an Adapter: version and matrices
        at = 8 + len(head)
        table = struct.pack("<iiI", at - 8, version, 4)
        tables, offsets = b"", []
        begin = at + len(table) + 4 + 4 * len(matrices)
        for matrix in matrices:
            begin_of_table = struct.unpack("<I", matrix[:4])[0]
            start = begin + len(tables)
            start += -start % 8
            tables += bytes(start - begin - len(tables)) + matrix[4:]
            offsets.append(start + begin_of_table)
        vector = struct.pack("<I", len(matrices) if count is None else count)
        place = at + len(table) + 4
        for number, offset in enumerate(offsets):
            vector += struct.pack("<I", offset - place - 4 * number)
        self.bytes = struct.pack("<I", at) + identifier + head + table + vector + tables


def matrix(name: str, shape: Sequence[int], raw: bytes, type: int = FLOAT, size: int | None = None) -> bytes:
    """A matrix: where its table begins in what follows, then that. ``size``: the length that it claims."""
    text = struct.pack("<I", len(name)) + name.encode()
    text += bytes(-len(text) % 4)
    dims = struct.pack(f"<I{len(shape)}q", len(shape), *shape)
    data = struct.pack("<I", len(raw) if size is None else size) + raw
    fields = struct.pack("<6H", 12, 20, 4, 8, 12, 16)
    # list of fields, table of five words, then what it points to; each from its own place
    table = struct.pack("<iIIiI", 12, 16, 12 + len(text), type, 4 + len(text) + len(dims))
    return struct.pack("<I", len(fields)) + fields + table + text + dims + data


def floats(*values: float) -> bytes:
    """Numbers of 32 bits."""
    return struct.pack(f"<{len(values)}f", *values)


def place_for(name: str, shape: Sequence[int | str], type: int = FLOAT) -> bytes:
    """ValueInfoProto."""
    extents = [message((1, message((1, each) if isinstance(each, int) else (2, each)))) for each in shape]
    dense = message((1, type), (2, b"".join(extents)))
    return message((1, name), (2, message((1, dense))))


def adaptable(width: int = 2, rank: int = 0, name: str = "q", type: int = FLOAT) -> bytes:
    """A model with place for one adapter: around a layer as wide as it is."""
    a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
    nothing = bytes(4 * width * rank)
    inputs: list[Part] = [(11, place_for("x", ["n", width])), (11, place_for(a, [width, f"{name}.rank"], type)),
                          (11, place_for(b, [f"{name}.rank", width], type))]  # fmt: skip
    held = [tensor(a, [width, rank], (9, nothing), type=type), tensor(b, [rank, width], (9, nothing), type=type)]
    nodes = [node("MatMul", ["x", a], ["h"]), node("MatMul", ["h", b], ["y"])]
    return model(graph(nodes, held, *inputs))


def adapter(width: int = 2, rank: int = 1, name: str = "q", first: float = 0.5) -> bytes:
    """One that fits it."""
    a = [first] * (width * rank)
    return Written(matrix(f"{name}.lora_A.weight", [width, rank], floats(*a)),
                   matrix(f"{name}.lora_B.weight", [rank, width], floats(*a))).bytes  # fmt: skip


def beside(folder: Path, adapters: Mapping[str, bytes]) -> None:
    """Adapters in a model's folder, and their list."""
    (folder / "adapters").mkdir(exist_ok=True)
    told = {}
    for name, content in adapters.items():
        (folder / "adapters" / f"{name}.onnx_adapter").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        told[name] = {"file": f"adapters/{name}.onnx_adapter", "digest": f"sha256:{digest}"}
    (folder / "adapters.json").write_text(json.dumps(told))


def safetensors(tensors: Mapping[str, tuple[str, Sequence[int], bytes]]) -> bytes:
    """A file in that format: (type, shape, numbers) by name."""
    header, content = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(content), len(content) + len(raw)]}
        content += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def peft(folder: Path, tensors: Mapping[str, tuple[str, Sequence[int], bytes]], **config: Any) -> Path:
    """An adapter in PEFT's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "use_dora": False, "rank_pattern": {},
             "alpha_pattern": {}, "init_lora_weights": True, "modules_to_save": None, "use_rslora": False}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(plain | config))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    return folder
