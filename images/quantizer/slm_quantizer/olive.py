"""Microsoft Olive: a declared workflow in, an artefact out, and nothing taken on trust.

Olive can end well without a model, so what counts is the artefact. Its cache is fresh each time: its keys leave out the
versions of the packages that made the content. Keys that it does not know it ignores, so they are compared with what this
very version declares. It fetches calibration data from the web where none are named, so a pass that has a place for them
has to name ours.
"""

import contextlib
import shutil
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slm_quantizer.made import Heard, check_made, heard
from slm_quantizer.passes import QUIET, Listening, Passes
from slmkit.full import full
from slmkit.run import RunFailed
from slmops.contract import Reason

PROVIDERS = {"CPU": ("cpu", "CPUExecutionProvider"), "CUDA": ("gpu", "CUDAExecutionProvider")}
"""Olive's words for what a model is to compute on."""


def workflow(
    model: Path, passes: Mapping[str, dict[str, Any]], out: Path, cache: Path, device: str = "CPU"
) -> dict[str, Any]:
    """A workflow on this machine's CPU, in 32 bit. ``device``: what the result is to compute on."""
    kind, provider = PROVIDERS[device]
    return {
        "input_model": {"type": "HfModel", "model_path": str(model), "load_kwargs": {"torch_dtype": "float32"}},
        "systems": {"local": {"type": "LocalSystem", "accelerators": [
            {"device": kind, "execution_providers": [provider]}]}},
        "passes": deepcopy(dict(passes)), "host": "local", "target": "local",
        "no_artifacts": True, "output_dir": str(out), "cache_dir": str(cache),
    }  # fmt: skip


def carry_out(
    model: Path,
    passes: Mapping[str, dict[str, Any]],
    out: Path,
    wanted: tuple[str, ...],
    what: str,
    device: str = "CPU",
    told: Passes = QUIET,
) -> Path:
    """Run a workflow of these passes. Returns the folder ``out``, which holds the files that are ``wanted``. ``told``: who
    wants to know how far it is.

    Raises RunFailed: InvalidConfiguration where Olive does not know an option, ConversionFailed where it fails, or
    files are missing or are no whole model, DiskFull where that is why. Nothing is left then."""
    cache = out.with_name("olive-cache")
    for folder in (out, cache):
        shutil.rmtree(folder, ignore_errors=True)
    described = workflow(model, passes, out, cache, device)
    validate(described)
    _fit_together()
    from olive.workflows import run as run_olive

    try:
        ears = Listening(sys.stderr, told)
        with contextlib.redirect_stdout(ears), contextlib.redirect_stderr(ears), heard() as said:
            result = _run(run_olive, described, what, said)
        told.check()
        check_made(out, wanted, what, said, made=result.has_output_model())
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return out


def _run(olive: Callable[[Any], Any], described: Mapping[str, Any], what: str, said: Heard) -> Any:
    try:
        return olive(described)
    except (ValueError, RuntimeError, AssertionError) as error:  # what its own passes raise over a model
        if said.full or full(error):
            raise
        raise RunFailed(Reason.CONVERSION_FAILED, f"Olive made no {what} of this one: {error}") from error


def validate(described: Mapping[str, Any]) -> None:
    """Raise RunFailed where this version of Olive does not know an option of a pass, does not take its value, or would
    fetch data from elsewhere."""
    from olive.hardware import DEFAULT_CPU_ACCELERATOR
    from olive.package_config import OlivePackageConfig
    from olive.workflows.run.config import RunConfig

    known_passes = OlivePackageConfig.load_default_config()
    try:
        RunConfig.model_validate(deepcopy(dict(described)))
        for name, options in described["passes"].items():
            kind = known_passes.import_pass_module(options["type"])
            known = set(kind._default_config(DEFAULT_CPU_ACCELERATOR))
            rest = {key: value for key, value in options.items() if key != "type"}
            if unknown := sorted(set(rest) - known):
                raise ValueError(f"{name}: {options['type']} does not know {', '.join(unknown)}")
            if "data_config" in known and not rest.get("data_config"):
                raise ValueError(f"{name}: {options['type']} would fetch calibration data from the web")
            kind.generate_config(DEFAULT_CPU_ACCELERATOR, deepcopy(rest), disable_search=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"Olive refuses the recipe: {where}: {first['msg']}") from None
    except (ValueError, KeyError) as error:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"Olive refuses the recipe: {error}") from None


def _fit_together() -> None:
    """Olive 0.13 calls the model builder as it was before onnxruntime-genai 0.16. Options are parsed beforehand now; those
    that begin with int4_ have lost that, and would be passed over in silence; and the module that Olive patches to read
    checkpoints of its own making has moved, and reads them by itself."""
    from olive.passes.onnx.model_builder import ModelBuilder
    from onnxruntime_genai.models import builder

    if getattr(builder.create_model, "fitted", False):
        return
    original = builder.create_model

    def create_model(
        *, model_name: str, input_path: str, output_dir: str, precision: str, execution_provider: str, cache_dir: str,
        **options: Any,
    ) -> None:  # fmt: skip
        pairs = [
            f"{key.removeprefix('int4_')}={str(value).lower() if isinstance(value, bool) else value}"
            for key, value in options.items()
        ]
        place = (model_name, input_path, output_dir, precision, execution_provider, cache_dir)
        original(*place, **builder.parse_extra_options(*place, pairs))

    create_model.fitted = True  # type: ignore[attr-defined]
    builder.create_model = create_model
    ModelBuilder.maybe_patch_quant = staticmethod(lambda: None)
