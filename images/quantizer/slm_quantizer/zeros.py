"""How many weights of a built variant are zero, counted in its own files, where zero is exact or it is none."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slmkit.run import RunFailed
from slmops.contract import Reason

LAYERS = "/layers."
"""In the names of the nodes of a decoder's layers, as the model builder has them; the head is none of them."""


def sparsity(folder: Path, format: str, names: Collection[str]) -> float:
    """Share of zeros among the weights ``names`` of the model that was pruned. In ONNX, where weights have other names,
    and some have become one: of all that layers multiply with. Raises RunFailed, ConversionFailed, where there are none."""
    zeros = weights = 0
    for count, size in _in_onnx(folder) if format == "ONNX" else _in_safetensors(folder, names):
        zeros, weights = zeros + count, weights + size
    if not weights:
        raise RunFailed(Reason.CONVERSION_FAILED, "none of the weights that were pruned are found in what was built")
    return zeros / weights


def _in_safetensors(folder: Path, names: Collection[str]) -> Iterator[tuple[int, int]]:
    """(zeros, weights) of each tensor, as its own format computes it."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            held = set(file.keys())
            for name in sorted(names):
                if name in held:
                    weight = file.get_tensor(name)
                elif f"{name}_packed" in held:
                    weight = _unpacked(
                        {key: file.get_tensor(f"{name}_{key}") for key in PACKED if f"{name}_{key}" in held}
                    )
                else:
                    continue
                yield weight.numel() - int(weight.count_nonzero()), weight.numel()


PACKED = ("packed", "scale", "shape", "zero_point")
"""What compressed-tensors makes of a weight."""


def _unpacked(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """How far each number is from the one that stands for zero."""
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    shape = torch.Size(parts["shape"].tolist())
    bits = 32 * parts["packed"].shape[1] // shape[1]
    numbers = unpack_from_int32(parts["packed"], bits, shape)
    if "zero_point" not in parts:
        return numbers
    blocks = parts["scale"].shape[1]
    zeros = unpack_from_int32(parts["zero_point"], bits, torch.Size((shape[0], blocks)), packed_dim=0)
    return numbers - zeros.repeat_interleave(shape[1] // blocks, 1)


def _in_onnx(folder: Path) -> Iterator[tuple[int, int]]:
    import onnx_ir as ir

    for node in ir.load(folder / "model.onnx").graph:
        if LAYERS not in (node.name or "") or "lora" in (node.name or "").lower():
            continue
        if node.op_type == "MatMulNBits":
            weight = _of_blocks(node)
        elif node.op_type == "MatMul" and node.inputs[1] is not None and node.inputs[1].const_value is not None:
            weight = node.inputs[1].const_value.numpy()
        else:
            continue
        yield weight.size - int(np.count_nonzero(weight)), weight.size


def _of_blocks(node: Any) -> NDArray[np.int32]:
    """How far each number of a MatMulNBits is from the one that stands for zero, less what fills up the last block."""
    bits, block, columns = (node.attributes[name].as_int() for name in ("bits", "block_size", "K"))
    values = [
        None if value is None or value.const_value is None else value.const_value.numpy() for value in node.inputs
    ]
    packed = values[1]
    rows, blocks = packed.shape[:2]
    numbers = _split(packed.reshape(rows, -1), bits).reshape(rows, blocks, block)
    points = values[3] if len(values) > 3 else None
    if points is None:
        return (numbers - (1 << (bits - 1))).reshape(rows, -1)[:, :columns]
    zeros = _split(points.reshape(rows, -1), bits)[:, :blocks]
    return (numbers - zeros[:, :, None]).reshape(rows, -1)[:, :columns]


def _split(packed: NDArray[np.uint8], bits: int) -> NDArray[np.int32]:
    """The numbers in rows of bytes, the lower half of a byte first."""
    if bits == 8:
        return packed.astype(np.int32)
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1).astype(np.int32)
