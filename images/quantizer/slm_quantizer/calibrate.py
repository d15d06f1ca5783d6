"""The records that GPTQ, AWQ and Wanda watch a model on: of the data set that the run names, and of nowhere else."""

import heapq
import random
from pathlib import Path
from typing import Any

from slm_trainer.encoding import encode
from slmkit.data import read_examples
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import QuantizeRun, Reason


def calibration(run: QuantizeRun, tokenizer: Any, context: Context, registry: Registry) -> Path | None:
    """The folder of a TokenStore with records as the model's chat template writes them; None where none are wanted.

    The same records for the same data, however many there are beside them. Raises RunFailed, InvalidData, where no record
    with an answer is short enough."""
    wanted = run.calibration
    if wanted is None:
        return None
    folder, into = context.work / "calibration", context.work / "calibration-tokens"
    context.inputs["calibration"] = fetch(wanted.data.source, folder, registry, "dataset")
    rng = random.Random(0)  # noqa: S311  (a sample, not a secret)
    examples = (example for example in read_examples(wanted.data, folder) if example.completion is not None)
    drawn = heapq.nsmallest(
        wanted.samples, ((rng.random(), number, example) for number, example in enumerate(examples))
    )
    encoded, dropped = encode(tokenizer, (example for *_, example in drawn), wanted.max_sequence_length, into)
    if not encoded:
        raise RunFailed(Reason.INVALID_DATA, f"no record to calibrate with: {dropped} of {len(drawn)} are longer than "
                        f"calibration.maxSequenceLength {wanted.max_sequence_length}")  # fmt: skip
    return into
