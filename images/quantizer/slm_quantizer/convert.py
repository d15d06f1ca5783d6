"""The conversion itself: one Olive workflow with one pass, ONNX Runtime GenAI's model builder.

Olive can end well without a model, so what counts is the artefact. Its cache is fresh each time: its keys leave out the
versions of the packages that made the content.
"""

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

from slm_quantizer.made import check_made, heard
from slmops.contract import QuantizeRun

ALGORITHMS = {"RTN": "rtn", "KQuant": "k_quant_mixed"}


def convert(model: Path, run: QuantizeRun, work: Path) -> Path:
    """Convert a checked model folder. Returns the folder with the ONNX model."""
    out, cache = work / f"olive-{run.precision}", work / "olive-cache"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(cache, ignore_errors=True)
    options: dict[str, Any] = {"type": "ModelBuilder", "precision": run.precision.lower()}
    if run.precision == "INT4":
        options |= {"int4_block_size": run.block_size, "int4_is_symmetric": run.symmetric,
                    "int4_algo_config": ALGORITHMS[run.algorithm]}  # fmt: skip
    workflow = {
        "input_model": {"type": "HfModel", "model_path": str(model)},
        "systems": {"local": {"type": "LocalSystem", "accelerators": [
            {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}},
        "passes": {"build": options}, "host": "local", "target": "local",
        "no_artifacts": True, "output_dir": str(out), "cache_dir": str(cache),
    }  # fmt: skip
    _fit_together()
    from olive.workflows import run as run_olive

    try:
        with contextlib.redirect_stdout(sys.stderr), heard() as olive:
            result = run_olive(workflow)
        check_made(out, run.precision, olive, made=result.has_output_model())
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return out


def _fit_together() -> None:
    """Olive 0.13 calls the model builder as it was before onnxruntime-genai 0.16: options are parsed beforehand now, and
    the module that Olive patches for checkpoints of its own making has moved (those are not read here)."""
    from olive.passes.onnx.model_builder import ModelBuilder
    from onnxruntime_genai.models import builder

    if getattr(builder.create_model, "fitted", False):
        return
    original = builder.create_model

    def create_model(
        *, model_name: str, input_path: str, output_dir: str, precision: str, execution_provider: str, cache_dir: str,
        **options: Any,
    ) -> None:  # fmt: skip
        pairs = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in options.items()]
        place = (model_name, input_path, output_dir, precision, execution_provider, cache_dir)
        original(*place, **builder.parse_extra_options(*place, pairs))

    create_model.fitted = True  # type: ignore[attr-defined]
    builder.create_model = create_model
    ModelBuilder.maybe_patch_quant = staticmethod(lambda: None)
