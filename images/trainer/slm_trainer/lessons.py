"""The records that a run learns from, as tokens on disk."""

from pathlib import Path
from typing import Any

from slm_trainer.dataset.spool import Spool
from slm_trainer.pairs import Pairs, encode_pairs
from slm_trainer.store import TokenStore
from slm_trainer.tokens import encode
from slmkit.run import Context, RunFailed
from slmops.contract import Reason, TrainRun


def lessons(
    run: TrainRun, tokenizer: Any, examples: Spool, into: Path, context: Context
) -> tuple[TokenStore | Pairs, int]:
    """Records, or pairs of them where answers are compared; and how many were too long. Raises RunFailed where none is
    left."""
    longest = run.hyperparameters.max_sequence_length
    make = encode_pairs if run.contrast else encode
    records, dropped = make(tokenizer, context.going(examples), longest, into)
    if not records:
        raise RunFailed(Reason.INVALID_DATA, f"no record to train on: {dropped} of {len(examples)} are longer than "
                        f"maxSequenceLength {longest}")  # fmt: skip
    return records, dropped
