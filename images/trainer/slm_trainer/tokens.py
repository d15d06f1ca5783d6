"""Conversations -> token batches: chat template, labels on the answer alone, records of like length together."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from slm_trainer.losses import IGNORED
from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Reason

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""For tokenizers that are made here: a marker for each role, one for the end."""
SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


@dataclass(frozen=True)
class Record:
    """One record as tokens; the answer begins at ``start``."""

    tokens: list[int]
    start: int


def prompt_tokens(tokenizer: Any, example: Example) -> list[int]:
    """The conversation up to where the answer begins."""
    text = tokenizer.apply_chat_template(list(example.prompt), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode(tokenizer: Any, examples: Iterable[Example], longest: int) -> tuple[list[Record], int]:
    """Records, and how many were longer than ``longest`` tokens and therefore dropped."""
    records, dropped = [], 0
    for example in examples:
        whole = tokenizer.apply_chat_template(example.messages(), tokenize=False)
        prompt = tokenizer.apply_chat_template(list(example.prompt), tokenize=False, add_generation_prompt=True)
        if not whole.startswith(prompt):
            raise RunFailed(Reason.UNSUPPORTED_MODEL, "the chat template begins an answer in another way than it writes "
                            "one: what is trained would not be what is generated")  # fmt: skip
        head = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        # Prompt and answer are cut apart as text, so that training sees the very tokens that generation starts from.
        tail = list(tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"])
        if len(head) + len(tail) > longest:
            dropped += 1
        else:
            records.append(Record(head + tail, len(head)))
    return records, dropped


def batches(records: Sequence[Record], size: int, pad: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One epoch of (tokens, attention mask, labels), each (batch, length). Records of like length share a batch, the
    batches come in random order."""
    rng = random.Random(seed)  # noqa: S311  (a shuffle)
    order = sorted(range(len(records)), key=lambda i: (len(records[i].tokens), rng.random()))
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(groups)
    for group in groups:
        yield collate([records[i] for i in group], pad)


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
