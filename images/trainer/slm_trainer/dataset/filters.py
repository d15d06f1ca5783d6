"""Filters: each looks at one record and says why it is dropped, or nothing."""

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from slm_trainer.dataset.seen import Seen, key
from slmkit.data import Example

Filter = Callable[[Example], str | None]
"""A record -> the reason for which it is dropped, None to keep it."""


def words(example: Example) -> int:
    """Length of a record, prompt and answer together. Words, because which tokenizer will be used is not the data's to
    know."""
    return sum(len(message["content"].split()) for message in example.messages())


class Leaks:
    """Drops what is held out: a model is not to be measured by what it has learned."""

    def __init__(self, held_out: Seen) -> None:
        self._held_out = held_out

    def __call__(self, example: Example) -> str | None:
        """``Leaked``, or None."""
        return "Leaked" if key(example) in self._held_out else None


class Duplicates:
    """Drops records whose prompt (or whole text) was seen before, letter by letter."""

    def __init__(self, path: Path) -> None:
        self._seen = Seen(path)

    def __call__(self, example: Example) -> str | None:
        """``Duplicate``, or None."""
        return None if self._seen.add(key(example)) else "Duplicate"

    def close(self) -> None:
        """Forget all."""
        self._seen.close()


class Length:
    """Drops what is shorter or longer than wanted, in words."""

    def __init__(self, least: int | None, most: int | None) -> None:
        self._least, self._most = least or 0, most

    def __call__(self, example: Example) -> str | None:
        """``TooShort``, ``TooLong``, or None."""
        length = words(example)
        if length < self._least:
            return "TooShort"
        return "TooLong" if self._most is not None and length > self._most else None


class Labels:
    """Drops records whose answer is none of the wanted ones. White space around it does not count."""

    def __init__(self, labels: Collection[str]) -> None:
        self._labels = set(labels)

    def __call__(self, example: Example) -> str | None:
        """``InvalidLabel``, or None."""
        return None if (example.completion or "").strip() in self._labels else "InvalidLabel"


class Balance:
    """Keeps the first so many records of each answer, or of each category. What has no category is one of its own.

    Memory grows with the number of different answers, not of records."""

    def __init__(self, per: Literal["Answer", "Category"], most: int) -> None:
        self._per, self._most = per, most
        self._kept: Counter[int] = Counter()

    def __call__(self, example: Example) -> str | None:
        """``Unbalanced``, or None."""
        of = hash((example.completion or "").strip() if self._per == "Answer" else example.category)
        self._kept[of] += 1
        return "Unbalanced" if self._kept[of] > self._most else None
