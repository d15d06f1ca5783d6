"""Records -> token batches: labels on the answer alone, records of like length together."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from slm_trainer.encoding import CHAT_TEMPLATE, SPECIAL, encode, prompt_tokens
from slm_trainer.losses import IGNORED
from slm_trainer.store import Record, lengths

__all__ = ["CHAT_TEMPLATE", "SPECIAL", "Record", "batches", "collate", "encode", "prompt_tokens"]


def batches(records: Sequence[Record], size: int, pad: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One epoch of (tokens, attention mask, labels), each (batch, length). Records of like length share a batch, the
    batches come in random order."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(records)), lengths(records)))
    for begin in rng.permutation(np.arange(0, len(order), size)):
        yield collate([records[int(number)] for number in order[begin : begin + size]], pad)


def collate(records: Sequence[Record], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pad on the right."""
    width = max(len(record.tokens) for record in records)
    tokens = torch.full((len(records), width), pad)
    mask = torch.zeros((len(records), width), dtype=torch.long)
    labels = torch.full((len(records), width), IGNORED)
    for row, record in enumerate(records):
        length = len(record.tokens)
        tokens[row, :length] = torch.tensor(record.tokens)
        mask[row, :length] = 1
        labels[row, record.start : length] = torch.tensor(record.tokens[record.start :])
    return tokens, mask, labels
