"""The adapters of a run: fetched, put beside the converted model, each compared with PyTorch, and told of.

An adapter is not quantized, so its file holds what it was given, to the last bit. What can still go wrong is where it goes:
so its effect is compared, too, which is the same direction in both runtimes, however coarse the model beside it is.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slm_quantizer.graft import graft
from slm_quantizer.likeness import cosine
from slm_quantizer.lora import Update, mismatch, read
from slm_quantizer.pack import ADAPTER
from slm_quantizer.runtimes import GenAI, Torch
from slm_quantizer.verify import Look, look
from slmkit.facts import INPUT
from slmkit.manifests import TITLE
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.safety import check_runtime_folder
from slmkit.safety.adapters import LIST, SUFFIX, digest
from slmkit.sources import check_model_folder, fetch
from slmops.contract import Artifact, PackedAdapter, QuantizeRun, Reason

log = logging.getLogger(__name__)
FOLDER = "adapters"
EFFECT = {"FP32": 0.99, "FP16": 0.9, "INT8": 0.8, "INT4": 0.5}
"""Least cosine similarity of what an adapter changes in the next-token logits, mean over the prompts where it changes
something. In a place that is not its own it is near zero."""
LITTLE = 0.01
"""What is less than this share of the logits is rounding."""


def fetched(run: QuantizeRun, context: Context, registry: Registry) -> dict[str, Path]:
    """The folders of the adapters by name, checked. Raises RunFailed, AdapterMismatch, for one of another model."""
    found = {}
    for name, source in sorted(run.adapters.items()):
        folder = found[name] = context.work / FOLDER / name
        role = f"adapter.{name}"
        context.inputs[role] = fetch(source, folder, registry, "adapter")
        check_model_folder(folder)
        if context.inputs[role].startswith("oci://"):
            said = registry.annotations(context.inputs[role].removeprefix("oci://"), source.credentials)
            _of_this(name, said.get(f"{INPUT}base", ""), context.inputs["model"])
    return found


def _of_this(name: str, base: str, model: str) -> None:
    """Adapters of ours say what they were learned on. Those of others say nothing, and their shapes have to do."""
    (where, _, theirs), (here, _, ours) = base.rpartition("@"), model.rpartition("@")
    alike = where.partition("://")[0] == here.partition("://")[0]
    if alike and theirs and ours and theirs != ours:
        raise mismatch(name, f"it was learned on {base[:512]}, and the model is {model[:512]}")


def placed(built: Path, adapters: Mapping[str, Mapping[str, Update]], device: str) -> dict[str, Path]:
    """Put adapters beside the converted model of a folder, and make place for them in it. Returns their files."""
    files, told = {}, {}
    (built / FOLDER).mkdir()
    for name, matrices in graft(built, adapters, device).items():
        files[name] = path = built / FOLDER / f"{name}{SUFFIX}"
        write(path, matrices)
        told[name] = {"file": f"{FOLDER}/{path.name}", "digest": digest(path)}
    (built / LIST).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
    check_runtime_folder(built)  # as the edge runtime does
    return files


def write(path: Path, matrices: Mapping[str, Any]) -> None:
    """A file of ONNX Runtime's. Raises RunFailed, ConversionFailed, unless it holds them to the last bit."""
    from onnxruntime import AdapterFormat, OrtValue

    made = AdapterFormat()
    made.set_adapter_version(1)
    made.set_model_version(1)
    made.set_parameters({name: OrtValue.ortvalue_from_numpy(matrix) for name, matrix in sorted(matrices.items())})
    made.export_adapter(str(path))
    held = {name: value.numpy() for name, value in AdapterFormat.read_adapter(str(path)).get_parameters().items()}
    same = held.keys() == matrices.keys() and all(
        held[name].dtype == matrix.dtype
        and held[name].shape == matrix.shape
        and held[name].tobytes() == matrix.tobytes()
        for name, matrix in matrices.items()
    )
    if not same:
        raise RunFailed(Reason.CONVERSION_FAILED, f"{path.name} does not hold the adapter that was written into it")


def updates(folders: Mapping[str, Path]) -> dict[str, dict[str, Update]]:
    """What the adapters change. Raises RunFailed, AdapterMismatch, for one that no graph could take."""
    return {name: read(folder, name) for name, folder in folders.items()}


def verified(
    model: Path, tried: Path, folders: Mapping[str, Path], files: Mapping[str, Path], before: Look, precision: str,
    prompts: Sequence[str],
) -> dict[str, float]:  # fmt: skip
    """How near the model with each adapter comes to the original with it. Raises RunFailed, VerificationFailed, where one
    answers too differently, or does something else than in the original. ``before``: both without an adapter."""
    found = {}
    for name, folder in folders.items():
        try:
            after = look(Torch(model, folder), partial(GenAI, tried, files[name]), precision, prompts)
            same_effect(before, after, precision)
        except RunFailed as failed:
            raise RunFailed(failed.reason, f"adapter {name}: {failed.message}") from None
        found[name] = after.verification.similarity
    return found


def same_effect(before: Look, after: Look, precision: str) -> None:
    """Raise RunFailed, VerificationFailed, unless what an adapter changes is the same in both runtimes."""
    likeness = []
    for plain, wanted, bare, found in zip(before.wanted, after.wanted, before.found, after.found, strict=True):
        effect = wanted.logits - plain.logits
        if np.std(effect) > LITTLE * np.std(plain.logits):
            likeness.append(cosine(effect, found.logits - bare.logits))
    log.info("verified an adapter", extra={"similarity": after.verification.similarity, "effect": likeness})
    if likeness and not np.mean(likeness) >= EFFECT[precision]:
        text = f"what it changes is {np.mean(likeness):.3f} similar to what it changes in the original"
        raise RunFailed(Reason.VERIFICATION_FAILED, f"{text}, {EFFECT[precision]} is the least for {precision}")


def packed(
    registry: Registry, run: QuantizeRun, image: Artifact, similar: Mapping[str, float]
) -> dict[str, PackedAdapter]:
    """The adapters' layers in an image that was published."""
    manifest = registry.look(image.reference, run.output.credentials).manifest
    layers = {layer.get("annotations", {}).get(TITLE): layer for layer in manifest["layers"]}
    return {
        name: PackedAdapter(layer=layer["digest"], size=layer["size"], similarity=round(min(1.0, value), 6))
        for name, value in similar.items()
        for layer in [layers[f"{ADAPTER}{name}"]]
    }
