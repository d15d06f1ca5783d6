"""The limits that come with a task: those of Azure ML's distillation.

https://learn.microsoft.com/azure/machine-learning/concept-distillation"""

from collections.abc import Sequence

from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import LabelRun, Reason

LEAST = 65
LEAST_MATH = 40


def check_task(run: LabelRun, examples: Sequence[Example], role: str) -> None:
    """Refuse a data set that the task is not made for. Raises RunFailed with reason InvalidData; nothing was asked yet."""
    if run.task is None:
        return
    least = LEAST_MATH if run.task == "Math" else LEAST
    if role == "train" and len(examples) < least:
        raise RunFailed(Reason.INVALID_DATA, f"spec.task {run.task} needs at least {least} prompts to train on, "
                        f"{run.train.source.uri} holds {len(examples)}")  # fmt: skip
    if run.task == "Conversation":
        return
    for number, example in enumerate(examples, 1):
        said = [message["role"] for message in example.prompt if message["role"] != "system"]
        if said != ["user"]:
            raise RunFailed(
                Reason.INVALID_DATA,
                f"spec.data.{role}: {example.place(number)} has {len(said)} messages; spec.task {run.task} takes one "
                "user's message a record, only Conversation takes more",
            )
