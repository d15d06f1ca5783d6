"""Several records in one row, which do not see each other.

The places of the tokens begin at 0 with each record; from that, transformers builds a causal mask that ends at the record's
first token (block-diagonal attention; Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination",
arXiv 2107.02027). Not every model's code does so, and nothing would tell: ``prove`` looks, before any training.
"""

import random
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slm_trainer.batch import Batch
from slm_trainer.losses import IGNORED
from slm_trainer.tokens import Record
from slmkit.run import RunFailed
from slmops.contract import Reason

TOLERANCE = 1e-3
"""Largest difference between logits of a record alone and beside others, as a share of the largest logit: rounding."""
NONE = -1


class Rows:
    """The numbers of the records of each row, one row after the other: eight bytes a record at most."""

    def __init__(self, members: NDArray[np.uint32], ends: NDArray[np.uint32]) -> None:
        self._members, self._ends = members, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> list[int]:
        begin = int(self._ends[row - 1]) if row else 0
        found: list[int] = self._members[begin : self._ends[row]].tolist()
        return found


def rows(lengths: NDArray[np.uint32], longest: int) -> Rows:
    """Which records share a row of at most ``longest`` tokens: the longest record first, each into the fullest row that
    still holds it (best-fit decreasing), so few rows are needed. The order of equal lengths is that of the data.

    All numbers are in arrays: as Python's objects, those of large data would take more memory than a small model.
    """
    order = np.argsort(lengths.max() - lengths, kind="stable").astype(np.uint32)
    chosen = array("I")
    """The row of each record, in that order."""
    below = array("i")
    """Of each row, another one with the same room that is open, or none."""
    open_rows = array("i", [NONE]) * (longest + 1)
    """By the room that is left in it, the row that was put there last."""
    for length in lengths[order]:
        room = next((room for room in range(length, longest + 1) if open_rows[room] != NONE), longest)
        row = open_rows[room]
        if row == NONE:
            row = len(below)
            below.append(NONE)
        else:
            open_rows[room] = below[row]
        chosen.append(row)
        left = room - int(length)
        below[row], open_rows[left] = open_rows[left], row
    taken = np.frombuffer(chosen, np.uint32)
    members = order[np.argsort(taken, kind="stable")]
    return Rows(members, np.bincount(taken, minlength=len(below)).cumsum().astype(np.uint32))


def packed(records: Sequence[Record], made: Rows, size: int, pad: int, seed: int) -> Iterator[Batch]:
    """One epoch of batches of ``size`` rows, in random order."""
    order = array("I", range(len(made)))
    random.Random(seed).shuffle(order)  # noqa: S311  (a shuffle)
    for begin in range(0, len(order), size):
        yield collate([[records[i] for i in made[row]] for row in order[begin : begin + size]], pad)


def collate(groups: Sequence[Sequence[Record]], pad: int) -> Batch:
    """A row for each group of records. What is left of a row is a record of its own, without labels."""
    width = max(sum(len(record.tokens) for record in group) for group in groups)
    tokens = torch.full((len(groups), width), pad)
    mask = torch.zeros((len(groups), width), dtype=torch.long)
    labels = torch.full((len(groups), width), IGNORED)
    positions = torch.zeros((len(groups), width), dtype=torch.long)
    for row, group in enumerate(groups):
        at = 0
        for record in group:
            end = at + len(record.tokens)
            tokens[row, at:end] = torch.tensor(record.tokens)
            mask[row, at:end] = 1
            positions[row, at:end] = torch.arange(end - at)
            first = at + max(record.start, 1)  # nothing before a record's first token says what it is
            labels[row, first:end] = tokens[row, first:end]
            at = end
        positions[row, at:] = torch.arange(width - at)
    return Batch.of(tokens, mask, labels, positions)


@torch.no_grad()
def prove(model: Any, records: Sequence[Record], pad: int) -> None:
    """Compare logits of two records alone and in one row. Raises RunFailed where the model lets them see each other."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    pair = sorted(records[:64], key=lambda record: len(record.tokens))[:2]
    together = model(**collate([pair], pad).to(device).inputs()).logits[0]
    at, worst = 0, 0.0
    for record in pair:
        alone = model(**collate([[record]], pad).to(device).inputs()).logits[0]
        beside = together[at : at + len(record.tokens)]
        worst = max(worst, float((alone - beside).abs().max() / alone.abs().max().clamp_min(1e-9)))
        at += len(record.tokens)
    model.train(training)
    if not worst <= TOLERANCE:
        raise RunFailed(Reason.UNSUPPORTED_MODEL, f"training.packing: this model lets records of a row see each other "
                        f"(logits differ by {worst:.2g}); leave packing out")  # fmt: skip
