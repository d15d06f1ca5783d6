"""All questions of a run, each once and in the order of the data: on disk, so that their number costs no memory."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from slm_trainer.dataset.seen import Seen
from slm_trainer.label.answers import Question


class Questions(Protocol):
    """What can be gone through again and again."""

    def __len__(self) -> int:
        """How many."""

    def __iter__(self) -> Iterator[Question]:
        """From the first to the last."""


class Asked:
    """Questions in a folder. The first of equal ones is kept."""

    def __init__(self, made: Iterable[Question], folder: Path) -> None:
        self._path, self._count = folder / "questions", 0
        seen = Seen(folder / "seen")
        with self._path.open("w", encoding="utf-8") as file:
            for each in made:
                if seen.add(bytes.fromhex(each.key)):
                    file.write(json.dumps([each.messages, each.seed, each.key]) + "\n")
                    self._count += 1
        seen.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Question]:
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                messages, seed, key = json.loads(line)
                yield Question(tuple(messages), seed, key)
