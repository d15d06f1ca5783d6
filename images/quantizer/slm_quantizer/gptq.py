"""Checkpoints with quantized weights, by Olive: each weight to the nearest value (RTN), or GPTQ, which lets later weights
make up for the errors of earlier ones on calibration data (Frantar et al., arXiv 2210.17323).

GPTQ takes memory for the hidden states of all records, and for one layer at a time four bytes for each pair of inputs.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from slm_quantizer.calibrated import calibrated_by
from slm_quantizer.olive import carry_out
from slm_quantizer.passes import QUIET, Passes, converting
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Reason

BITS = {"INT4": 4, "INT8": 8}
MIDDLE = {4: 0x88, 8: 0x80}
"""A byte of zero points in the middle of the range: two of four bits, or one of eight."""


def quantized(model: Path, run: QuantizeRun, records: Path | None, work: Path, passes: Passes = QUIET) -> Path:
    """The model as a checkpoint of Olive's, in a folder: of each linear layer but the head ``qweight``, ``scales`` and
    ``qzeros``. INT4 in blocks of the run's size, INT8 with a scale for each output."""
    block = run.block_size if run.precision == "INT4" else -1
    check_blocks(model, block)
    options: dict[str, Any] = {"type": "Rtn", "bits": BITS[run.precision], "group_size": block, "sym": run.symmetric}
    if run.algorithm == "GPTQ":
        if records is None:
            raise RunFailed(Reason.INVALID_CONFIGURATION, "GPTQ needs calibration data")
        options |= {"type": "Gptq", "data_config": calibrated_by(records)}
    what = f"{run.precision} checkpoint by {options['type']}"
    passes.begin(converting(options["type"].upper()), depth(model))
    made = ("model/config.json",)
    with zeros_kept() if run.prune is not None else nullcontext():
        out = carry_out(model, {"quantize": options}, work / "olive-checkpoint", made, what, told=passes) / "model"
    for path in sorted(out.glob("*.safetensors")):
        _add_zero_points(path, MIDDLE[BITS[run.precision]])
    return out


@contextmanager
def zeros_kept() -> Iterator[None]:
    """Olive's GPTQ, by which weights that are zero stay zero: what it would write there to make up for errors goes on to
    the weights after them, as SparseGPT has it once it has chosen (Frantar and Alistarh, arXiv 2301.00774)."""
    from olive.passes.pytorch import gptq

    plain, original = gptq.WeightQuantizer, gptq.Gptq.process_module

    def process_module(module: Any, *arguments: Any, **named: Any) -> None:
        columns = iter((module.weight == 0).T)  # it rounds one after the other, in their order

        class Kept(plain):  # type: ignore[misc, valid-type]
            def fake_quantize(self, *given: Any) -> torch.Tensor:
                rounded: torch.Tensor = super().fake_quantize(*given)
                return rounded.masked_fill(next(columns)[:, None], 0.0)

        gptq.WeightQuantizer = Kept
        try:
            original(module, *arguments, **named)
        finally:
            gptq.WeightQuantizer = plain

    gptq.Gptq.process_module = staticmethod(process_module)
    try:
        yield
    finally:
        gptq.Gptq.process_module = staticmethod(original)


def depth(model: Path) -> int:
    """Layers of a model's decoder, as its configuration says; 0 where it does not."""
    count = json.loads((model / "config.json").read_bytes()).get("num_hidden_layers")
    return count if isinstance(count, int) else 0


def check_blocks(model: Path, block: int) -> None:
    """Raise RunFailed, ConversionFailed, where blocks of so many weights would not end with a row: what rounds them pads
    nothing. -1: a whole row is one. Another precision has no such blocks, so the next of the ladder may be built."""
    config = json.loads((model / "config.json").read_bytes())
    for name in ("hidden_size", "intermediate_size"):
        size = config.get(name)
        if isinstance(size, int) and block > 0 and size % block:
            raise RunFailed(Reason.CONVERSION_FAILED, f"blocks of {block} weights do not fill the model's {name}, "
                            f"{size}: choose another blockSize, or algorithm RTN in ONNX, which pads")  # fmt: skip


def _add_zero_points(path: Path, middle: int) -> None:
    """Olive leaves out zero points that are all in the middle of the range; the model builder looks for them."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        metadata = file.metadata()
    bits = 4 if middle == MIDDLE[4] else 8
    for name in [name for name in tensors if name.endswith(".scales")]:
        zeros = name.removesuffix("scales") + "qzeros"
        rows, blocks = tensors[name].shape
        if zeros not in tensors:
            tensors[zeros] = torch.full((rows, -(-blocks * bits // 8)), middle, dtype=torch.uint8)
    save_file(tensors, path, metadata)
