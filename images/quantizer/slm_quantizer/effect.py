"""What pruning has come to: the model that is built from, and what is measured of it once it is built."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slm_quantizer.likeness import likeness
from slm_quantizer.pack import layers
from slm_quantizer.passes import Passes
from slm_quantizer.prune import pruned
from slm_quantizer.runtimes import Torch
from slm_quantizer.zeros import sparsity
from slmkit.run import Context, RunFailed
from slmops.contract import Pruned, QuantizeRun, Reason

LOST = 0.001
"""Share of the zeros that may be none any more after the conversion."""


@dataclass(frozen=True)
class Pruning:
    """A pruned model, beside the one that it was made from."""

    original: Path
    folder: Path
    names: Sequence[str]
    """Weights that were pruned."""

    @property
    def sparsity(self) -> float:
        """Share of zeros before anything is rounded."""
        return sparsity(self.folder, "Safetensors", self.names)


def prune(model: Path, run: QuantizeRun, records: Path | None, context: Context) -> Pruning | None:
    """The pruned model; None where nothing is to be pruned."""
    if run.prune is None:
        return None
    out = context.work / "pruned"
    return Pruning(model, out, pruned(model, run.prune, records, out, Passes(context)))


def measured(
    pruning: Pruning,
    built: Path,
    run: QuantizeRun,
    prompts: Sequence[str],
    dense: Callable[[Path], Path],
    context: Context,
) -> Pruned:
    """What has come of it. ``dense``: builds the variant without pruning in a folder. Raises RunFailed, ConversionFailed,
    where the conversion has filled what was pruned."""
    wanted, found = pruning.sparsity, sparsity(built, run.format, pruning.names)
    if found < wanted * (1 - LOST):
        text = f"the conversion has filled what was pruned: {found:.1%} of those weights are zero, {wanted:.1%} were before"
        raise RunFailed(Reason.CONVERSION_FAILED, text)
    similar = _similar(pruning, prompts)
    folder = context.work / "dense"
    folder.mkdir()
    full = _packed(dense(folder), run)
    shutil.rmtree(folder)
    return Pruned(sparsity=found, similarity=similar, packed_bytes=_packed(built, run), dense_packed_bytes=full)


def _similar(pruning: Pruning, prompts: Sequence[str]) -> float:
    before, after = Torch(pruning.original), Torch(pruning.folder)
    found = []
    for prompt in prompts:
        if before.fits(prompt, 1):
            tokens = before.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            found.append(likeness(before.next_logits(tokens), after.next_logits(tokens), prompt))
    return max(-1.0, min(1.0, float(np.nan_to_num(np.mean(found)))))


def _packed(folder: Path, run: QuantizeRun) -> int:
    """Bytes of the layer of weights with Zstandard, whatever the image has."""
    return layers(folder, run.name, "Zstd")[0].measure().size
