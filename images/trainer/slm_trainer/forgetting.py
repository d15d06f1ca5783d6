"""What an adaptation costs where the base was good before: records of the base's own task, measured before and after."""

from slm_trainer.evaluate import choose
from slmkit.data import Example, read_examples
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import Evaluation, Reason, TrainRun

ROLE = "baseTask"


def base_task(run: TrainRun, context: Context, registry: Registry) -> list[Example]:
    """The records to measure by; none where the run names none."""
    if run.base_task is None:
        return []
    folder = context.work / "data-base-task"
    context.inputs[ROLE] = fetch(run.base_task.source, folder, registry, "dataset", run.base_task.path)
    found = choose(read_examples(run.base_task, folder), run.evaluation.samples, run.hyperparameters.seed)
    if not found:
        raise RunFailed(
            Reason.INVALID_DATA, f"baseTask: {run.base_task.source.uri}: no record has an answer to measure by"
        )
    return found


def matching(run: TrainRun) -> Evaluation:
    """How they are measured: by exact match alone, whatever the adaptation itself is measured by."""
    return run.evaluation.model_copy(update={"metrics": ()})
