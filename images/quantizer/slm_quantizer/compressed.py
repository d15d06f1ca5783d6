"""Safetensors: the model's own format, in FP32 or FP16, or in INT4 or INT8 as compressed-tensors, which vLLM reads.

Weights are rounded by Olive, as for ONNX, and written as compressed-tensors' ``pack-quantized``: whole numbers packed into
32 bits, a scale for each block (INT4) or each output (INT8). Embeddings and head stay as they are.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from slm_quantizer.awq import awq
from slm_quantizer.gptq import BITS, quantized
from slm_quantizer.passes import QUIET, Passes, converting
from slm_quantizer.source import load
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Reason

DTYPES = {"FP32": torch.float32, "FP16": torch.float16}
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def build(model: Path, run: QuantizeRun, records: Path | None, work: Path, passes: Passes = QUIET) -> Path:
    """Convert a checked model folder. Returns the folder with the result: weights, configuration, tokenizer."""
    out = work / f"safetensors-{run.precision}"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(model, out, ignore=shutil.ignore_patterns(*WEIGHTS))
    if run.precision in DTYPES:
        passes.begin(converting(run.format))
        loaded = load(model, DTYPES[run.precision])
        if not all(bool(tensor.isfinite().all()) for tensor in loaded.state_dict().values()):
            raise RunFailed(Reason.CONVERSION_FAILED, f"weights of the model are beyond the range of {run.precision}")
        loaded.save_pretrained(out)
        return out
    if run.algorithm == "AWQ":
        if records is None:
            raise RunFailed(Reason.INVALID_CONFIGURATION, "AWQ needs calibration data")
        model = awq(model, records, run.block_size, run.symmetric, work / "scaled", passes)
    checkpoint = quantized(model, run, records, work, passes)
    passes.begin(converting(run.format))
    _compress(checkpoint, run, out)
    return out


def _compress(checkpoint: Path, run: QuantizeRun, out: Path) -> None:
    """Olive's checkpoint as compressed-tensors: the same whole numbers and scales under other names."""
    from compressed_tensors.compressors import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from olive.common.quant.utils import unpack_from_uint8
    from safetensors.torch import load_file, save_file

    bits = BITS[run.precision]
    blocks: dict[str, Any] = (
        {"strategy": "group", "group_size": run.block_size} if bits == 4 else {"strategy": "channel"}
    )
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=bits, type="int", symmetric=run.symmetric, **blocks)
    )
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        tensors |= load_file(path)
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if name.rpartition(".")[2] not in ("qweight", "qzeros", "scales")
    }
    middle = 1 << (bits - 1)
    for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        packed, scales = tensors[f"{name}.qweight"], tensors[f"{name}.scales"].float()
        rows, columns = packed.shape[0], packed.shape[1] * 8 // bits
        numbers = unpack_from_uint8(packed, bits, (rows, columns)).int()
        zeros = unpack_from_uint8(tensors[f"{name}.qzeros"], bits, tuple(scales.shape)).int()
        wide = columns // scales.shape[1]
        weight = (numbers - zeros.repeat_interleave(wide, 1)) * scales.repeat_interleave(wide, 1)
        state = {"weight": weight, "weight_scale": scales, "weight_zero_point": (zeros - middle).to(torch.int8)}
        for key, tensor in PackedQuantizationCompressor.compress(state, scheme).items():
            kept[f"{name}.{key}"] = tensor.contiguous()
    save_file(kept, out / "model.safetensors", {"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    config |= {"dtype": "float32", "quantization_config": {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": {
            "targets": ["Linear"], "weights": scheme.weights.model_dump(mode="json", exclude_none=True)}},
    }}  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
