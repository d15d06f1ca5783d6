"""What the training loop is fed with: batches, in groups of which each makes one optimizer step."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from slm_trainer.batch import Batch
from slm_trainer.packing import packed, rows
from slm_trainer.pairs import Pairs
from slm_trainer.schedule import steps_an_epoch
from slm_trainer.store import lengths
from slm_trainer.tokens import Record, batches
from slmops.contract import Hyperparameters


class Feed:
    """Epochs of groups of batches. The last group of an epoch may be smaller; it is a step of its own."""

    def __init__(self, records: Sequence[Record], wanted: Hyperparameters, pad: int) -> None:
        self._records, self._wanted, self._pad = records, wanted, pad
        self._rows = rows(lengths(records), wanted.max_sequence_length) if wanted.packing else None
        count = len(records) if self._rows is None else len(self._rows)
        self.per_epoch = steps_an_epoch(count, wanted)
        """Optimizer steps of an epoch."""

    def epoch(self, number: int) -> Iterator[list[Batch]]:
        """The groups of an epoch, in an order of its own that the seed decides."""
        wanted = self._wanted
        seed, size = wanted.seed + number, wanted.batch_size
        if self._rows is not None:
            return groups(packed(self._records, self._rows, size, self._pad, seed), wanted.gradient_accumulation)
        if isinstance(self._records, Pairs):
            return groups(self._records.batches(size, self._pad, seed), wanted.gradient_accumulation)
        made = batches(self._records, size, self._pad, seed)
        return groups((Batch.of(*batch) for batch in made), wanted.gradient_accumulation)

    def endless(self, made: int = 0) -> Iterator[list[Batch]]:
        """Epoch after epoch, without the first ``made`` groups: those steps were made before."""
        number, rest = divmod(made, self.per_epoch)
        yield from islice(self.epoch(number), rest, None)
        while True:
            number += 1
            yield from self.epoch(number)


def groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of ``size`` batches; what is left in the end is a shorter one."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def weight(batch: Batch, group: Sequence[Batch]) -> float:
    """The share of a batch's mean loss in the group's, so that every token of an answer (or pair of answers)
    counts the same: the sum of weighted means is the mean over the whole group."""
    whole = sum(other.answered for other in group)
    return batch.answered / whole if whole else 0.0
