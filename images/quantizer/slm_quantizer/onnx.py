"""ONNX, by Olive's pass of ONNX Runtime GenAI's model builder: what the edge runtime and Foundry Local serve."""

import json
from pathlib import Path
from typing import Any

from slm_quantizer.awq import awq
from slm_quantizer.gptq import check_blocks, depth, quantized
from slm_quantizer.olive import carry_out
from slm_quantizer.pack import GENAI
from slm_quantizer.passes import QUIET, Passes, converting
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Reason

ROUNDING = {"RTN": "rtn", "KQuant": "k_quant_mixed", "AWQ": "rtn"}
"""How the builder itself rounds; AWQ has scaled the weights beforehand, GPTQ has rounded them."""
HIDDEN = "hidden_states"
"""The builder's name of the output that embeddings are taken from."""
FILES = ("model.onnx", GENAI)


def build(model: Path, run: QuantizeRun, records: Path | None, work: Path, passes: Passes = QUIET) -> Path:
    """Convert a checked model folder. ``records``: a TokenStore to calibrate with. Returns the folder with the ONNX
    model."""
    options: dict[str, Any] = {"type": "ModelBuilder", "precision": run.precision.lower()}
    if run.embeddings:
        options["include_hidden_states"] = True
    if run.precision == "INT4":
        options |= {"int4_block_size": run.block_size, "int4_is_symmetric": run.symmetric}
        if run.algorithm == "GPTQ":
            model = quantized(model, run, records, work, passes)
            # Of the head alone, which the builder rounds: one that is the embedding, too, it can share in no other way.
            options["int4_is_symmetric"] = True
        else:
            options["int4_algo_config"] = ROUNDING[run.algorithm]
        if run.algorithm == "KQuant":
            check_blocks(model, 2 * run.block_size)  # two zero points share a byte
    if run.algorithm == "AWQ":
        if records is None:
            raise RunFailed(Reason.INVALID_CONFIGURATION, "AWQ needs calibration data")
        model = awq(model, records, run.block_size, run.symmetric, work / "scaled", passes)
    what = f"{run.precision} model"
    passes.begin(converting(run.format), depth(model))
    made = carry_out(model, {"build": options}, work / f"olive-{run.precision}", FILES, what, run.device, passes)
    if run.embeddings:
        _check_embeddings(made)
    return made


def _check_embeddings(folder: Path) -> None:
    """The builder passes over what it does not know of an architecture, and the edge server would find nothing."""
    import onnx

    outputs = {output.name for output in onnx.load(folder / FILES[0], load_external_data=False).graph.output}
    if HIDDEN not in outputs:
        raise RunFailed(Reason.CONVERSION_FAILED, f"the model builder made no output {HIDDEN} of this architecture: leave "
                        "embeddings out")  # fmt: skip


def on_cpu(folder: Path, view: Path) -> Path:
    """The same model as the CPU computes it, in a folder ``view`` that shares its files: where it can be tried."""
    config = json.loads((folder / GENAI).read_bytes())
    options = config["model"]["decoder"]["session_options"]
    if not options.get("provider_options"):
        return folder
    options["provider_options"] = []
    view.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (view / path.name).hardlink_to(path)
    (view / GENAI).unlink()
    (view / GENAI).write_text(json.dumps(config))
    return view
