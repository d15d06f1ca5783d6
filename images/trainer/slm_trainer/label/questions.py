"""All questions of a run, each once and in the order of the data: on disk, so that their number costs no memory."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from slm_trainer.dataset.seen import Seen
from slm_trainer.dataset.spool import Lines
from slm_trainer.label.answers import Question


class Asked(Lines[Question]):
    """Questions in a folder. The first of equal ones is kept."""

    def __init__(self, made: Iterable[Question], folder: Path) -> None:
        super().__init__(Question, folder / "questions")
        seen = Seen(folder / "seen")
        self.write(each for each in made if seen.add(bytes.fromhex(each.key)))
        seen.close()


Questions = Asked | Sequence[Question]
"""What can be gone through again and again."""
