"""The limits that come with a task: those of Azure ML's distillation.

https://learn.microsoft.com/azure/machine-learning/concept-distillation"""

from collections.abc import Iterable, Iterator

from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import LabelRun, Reason

LEAST = 65
LEAST_MATH = 40


def checked(run: LabelRun, examples: Iterable[Example], role: str) -> Iterator[Example]:
    """The examples. Refuses a data set that the task is not made for: raises RunFailed with reason InvalidData."""
    number = 0
    for number, example in enumerate(examples, 1):
        said = [message["role"] for message in example.prompt if message["role"] != "system"]
        if said != ["user"] and run.task not in (None, "Conversation"):
            raise RunFailed(
                Reason.INVALID_DATA,
                f"spec.data.{role}: {example.place(number)} has {len(said)} messages; spec.task {run.task} takes one "
                "user's message a record, only Conversation takes more",
            )
        yield example
    least = 0 if run.task is None else LEAST_MATH if run.task == "Math" else LEAST
    if role == "train" and number < least:
        raise RunFailed(Reason.INVALID_DATA, f"spec.task {run.task} needs at least {least} prompts to train on, "
                        f"{run.train.source.uri} holds {number}")  # fmt: skip
