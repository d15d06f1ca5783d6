"""The wanted filters, in the order in which they look at a record: the cheap and certain ones first."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from slm_trainer.dataset.filters import Balance, Duplicates, Filter, Labels, Leaks, Length
from slm_trainer.dataset.seen import Seen
from slmops.contract import Filters


@contextmanager
def prompt_filters(wanted: Filters | None, held_out: Seen, folder: Path) -> Iterator[list[Filter]]:
    """Those that look at the prompt: they save asking a teacher. What they remember is in ``folder`` while it lasts."""
    with ExitStack() as stack:
        filters: list[Filter] = [Leaks(held_out)]
        if wanted is not None and wanted.deduplicate:
            filters.append(duplicates := Duplicates(folder / "duplicates"))
            stack.callback(duplicates.close)
        if wanted is not None and wanted.near_duplicates is not None:
            from slm_trainer.dataset.near import NearDuplicates  # needs libraries that the quantizer's image has not

            filters.append(near := NearDuplicates(wanted.near_duplicates, folder / "near"))
            stack.callback(near.close)
        yield filters


def answer_filters(wanted: Filters | None, held_out: bool = False) -> list[Filter]:
    """Those that look at the answer, too. Held-out records stay as unbalanced as the world is."""
    filters: list[Filter] = []
    if wanted is None:
        return filters
    if wanted.labels:
        filters.append(Labels(wanted.labels))
    if wanted.min_tokens is not None or wanted.max_tokens is not None:
        filters.append(Length(wanted.min_tokens, wanted.max_tokens))
    if wanted.balance is not None and not held_out:
        filters.append(Balance(wanted.balance.per, wanted.balance.maximum))
    return filters
