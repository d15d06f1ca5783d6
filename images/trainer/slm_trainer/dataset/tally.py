"""Counts of what became of the records. Bounded: a report says the same of a thousand records and of a billion."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from slm_trainer.dataset.filters import Filter, words
from slm_trainer.tasks import LABELS
from slmkit.data import Example

SHOWN = 3
"""Dropped records that are shown for each reason."""
LETTERS = 300
"""Letters of each text that is shown."""
LONGEST = 128
"""Letters of a label (or category) at most, as the API has them; what is longer is an answer in words."""


@dataclass
class Tally:
    """What became of the records."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason."""
    drops: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    """By reason: (prompt, answer) of the first that were dropped, shortened."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Kept records by length: n counts those of more than 2ⁿ⁻¹ and at most 2ⁿ words."""
    answers: Counter[str] | None = field(default_factory=Counter)
    """Kept records by answer; None: there are too many different ones, or longer ones, than labels would be."""
    categories: Counter[str] | None = field(default_factory=Counter)
    """Kept records by category; None as above."""

    def drop(self, reason: str, example: Example, answer: str | None = None) -> None:
        """Count a dropped record."""
        self.dropped[reason] += 1
        shown = self.drops.setdefault(reason, [])
        if len(shown) < SHOWN:
            said = answer if answer is not None else example.completion
            prompt = "\n".join(message["content"] for message in example.prompt if message["role"] != "system")
            shown.append((prompt[:LETTERS], None if said is None else said[:LETTERS]))

    def keep(self, example: Example) -> None:
        """Count a kept record."""
        self.kept += 1
        self.lengths[max(0, words(example) - 1).bit_length()] += 1
        self.answers = _counted(self.answers, None if example.plain else example.completion)
        self.categories = _counted(self.categories, example.category)

    def lose(self, reason: str, records: int) -> None:
        """Count kept records that were dropped after all, once more was known of them."""
        if records:
            self.kept -= records
            self.dropped[reason] += records


def _counted(counts: Counter[str] | None, value: str | None) -> Counter[str] | None:
    if counts is None or value is None:
        return counts
    counts[value] += 1
    return counts if len(counts) <= LABELS and len(value) <= LONGEST else None


def reason(example: Example, filters: Sequence[Filter]) -> str | None:
    """Why the first of the filters that does drops a record; None: it is kept."""
    return next(filter(None, (look(example) for look in filters)), None)


def sift(examples: Iterable[Example], filters: Sequence[Filter], tally: Tally) -> Iterator[Example]:
    """The records that no filter drops, in their order. Each dropped one is counted once, by the first reason."""
    for example in examples:
        if (why := reason(example, filters)) is None:
            yield example
        else:
            tally.drop(why, example)


def counted(examples: Iterable[Example], filters: Sequence[Filter], tally: Tally) -> Iterator[Example]:
    """The same, where nothing else is between reading and keeping: read and kept records are counted, too."""

    def read() -> Iterator[Example]:
        for example in examples:
            tally.read += 1
            yield example

    for example in sift(read(), filters, tally):
        tally.keep(example)
        yield example
