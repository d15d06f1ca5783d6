"""Several records in one row, which do not see each other.

The places of the tokens begin at 0 with each record; from that, transformers builds a causal mask that ends at the record's
first token (block-diagonal attention; Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination",
arXiv 2107.02027). Not every model's code does so, and nothing would tell: ``prove`` looks, before any training.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from slm_trainer.batch import Batch
from slm_trainer.losses import IGNORED
from slm_trainer.tokens import Record
from slmkit.run import RunFailed
from slmops.contract import Reason

TOLERANCE = 1e-3
"""Largest difference between logits of a record alone and beside others, as a share of the largest logit: rounding."""


def rows(lengths: Sequence[int], longest: int) -> list[list[int]]:
    """Indices of records for each row of at most ``longest`` tokens: the longest record first, each into the fullest row
    that still holds it (best-fit decreasing), so few rows are needed. The order of equal lengths is that of the data."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    made: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(longest + 1)]
    """Rows by the room that is left in them."""
    for index in order:
        room = next((room for room in range(lengths[index], longest + 1) if open_rows[room]), None)
        if room is None:
            made.append([])
            row, room = len(made) - 1, longest
        else:
            row = open_rows[room].pop()
        made[row].append(index)
        open_rows[room - lengths[index]].append(row)
    return made


def packed(records: Sequence[Record], made: Sequence[Sequence[int]], size: int, pad: int, seed: int) -> Iterator[Batch]:
    """One epoch of batches of ``size`` rows, in random order."""
    order = list(range(len(made)))
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
