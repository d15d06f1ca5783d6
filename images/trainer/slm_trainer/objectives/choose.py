"""The objective that a run asks for, with its teacher fetched and found fit to teach this student."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_trainer.model import load_model, load_tokenizer
from slm_trainer.objectives.base import Objective
from slm_trainer.objectives.contrast import by_contrast
from slm_trainer.objectives.features import by_features, pairs_of
from slm_trainer.objectives.hints import Hints
from slm_trainer.objectives.logits import by_logits
from slm_trainer.objectives.vocabulary import check_same
from slm_trainer.tokens import Record
from slmkit.run import Context, RunFailed
from slmops.contract import Reason, TrainRun


def objective_of(
    run: TrainRun, teacher: Path | None, student: Any, tokenizer: Any, records: Sequence[Record], context: Context
) -> Objective:
    """What is minimized. ``teacher`` is the folder of its weights, which Logits and Features need.

    Raises RunFailed where teacher and student do not fit together.
    """
    wanted = run.objective
    if run.contrast is not None:
        return by_contrast(run.contrast)
    if wanted.type == "Labels":
        return Objective()
    if teacher is None:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"objective.teacher: {wanted.type} need the teacher's weights")
    check_same(load_tokenizer(teacher), tokenizer, wanted.type)
    if wanted.type == "Features":
        shown = load_model(teacher)
        return by_features(shown, student, wanted, pairs_of(wanted.layers, student.config, shown.config))
    hints = Hints(context.state / "hints", wanted.top_k, context.inputs.get("teacher", ""))
    hints.fill(lambda: load_model(teacher), records, run.hyperparameters.batch_size, len(tokenizer), context)
    return by_logits(hints, wanted)
