"""ONNX, by Olive's pass of ONNX Runtime GenAI's model builder: what the edge runtime and Foundry Local serve."""

from pathlib import Path
from typing import Any

from slm_quantizer.awq import awq
from slm_quantizer.gptq import quantized
from slm_quantizer.olive import carry_out
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Reason

ROUNDING = {"RTN": "rtn", "KQuant": "k_quant_mixed", "AWQ": "rtn"}
"""How the builder itself rounds; AWQ has scaled the weights beforehand, GPTQ has rounded them."""
FILES = ("model.onnx", "genai_config.json")


def build(model: Path, run: QuantizeRun, records: Path | None, work: Path) -> Path:
    """Convert a checked model folder. ``records``: a TokenStore to calibrate with. Returns the folder with the ONNX
    model."""
    options: dict[str, Any] = {"type": "ModelBuilder", "precision": run.precision.lower()}
    if run.precision == "INT4":
        options |= {"int4_block_size": run.block_size, "int4_is_symmetric": run.symmetric}
        if run.algorithm == "GPTQ":
            model = quantized(model, run, records, work)
        else:
            options["int4_algo_config"] = ROUNDING[run.algorithm]
    if run.algorithm == "AWQ":
        if records is None:
            raise RunFailed(Reason.INVALID_CONFIGURATION, "AWQ needs calibration data")
        model = awq(model, records, run.block_size, run.symmetric, work / "scaled")
    return carry_out(model, {"build": options}, work / f"olive-{run.precision}", FILES, f"{run.precision} model")
