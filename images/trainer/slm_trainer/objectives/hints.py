"""The teacher's likeliest next tokens for every record, computed once and kept on disk.

Two files of fixed width, mapped into memory and never read whole: 16-bit differences to the likeliest token's logit
(exact to a two-thousandth of the difference) and 32-bit token ids, 6 bytes for each of the k tokens of a position. In
memory stays one entry a record.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from slm_trainer.losses import IGNORED, likeliest
from slm_trainer.tokens import Record, batches
from slmkit.run import Context, RunFailed
from slmops.contract import Reason


class Hints:
    """A cache of (logits, token ids) by what a row of a batch holds, so that order and padding do not matter."""

    def __init__(self, folder: Path, k: int) -> None:
        self._folder, self._k = folder, k
        self._places: dict[bytes, tuple[int, int]] = {}
        self._logits: Any = None
        self._ids: Any = None

    def fill(self, teacher: Any, records: Sequence[Record], size: int, vocabulary: int, context: Context) -> None:
        """Ask the teacher about every record, once. It is not needed after that."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        teacher.to(device).eval()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._k = min(self._k, vocabulary)
        context.stage("Asking the teacher", of=len(records))
        done = position = 0
        with (self._folder / "logits").open("wb") as logits_file, (self._folder / "ids").open("wb") as ids_file:
            for tokens, mask, labels in batches(records, size, 0, 0):
                context.check()
                with torch.inference_mode():
                    shown = teacher(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits
                    logits, ids = likeliest(shown, labels.to(device), self._k, vocabulary)
                position = self._write(tokens, mask, labels, logits, ids, (logits_file, ids_file), position)
                done += len(tokens)
                context.step(done)
        if position:
            shape = (position, self._k)
            self._logits = np.memmap(self._folder / "logits", np.float16, "r", shape=shape)
            self._ids = np.memmap(self._folder / "ids", np.int32, "r", shape=shape)

    def of(self, tokens: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(logits, token ids) of a batch, both (positions, k) in the order of ``likeliest``."""
        places = [self._place(key) for key in _keys(tokens, mask, labels)]
        logits = np.concatenate([self._logits[begin:end] for begin, end in places])
        ids = np.concatenate([self._ids[begin:end] for begin, end in places])
        device = labels.device
        return torch.from_numpy(logits).to(device).float(), torch.from_numpy(ids).to(device).long()

    def _place(self, key: bytes) -> tuple[int, int]:
        try:
            return self._places[key]
        except KeyError:
            raise RunFailed(
                Reason.INTERNAL_ERROR, "a batch holds a record that the teacher was not asked about"
            ) from None

    def _write(
        self, tokens: Tensor, mask: Tensor, labels: Tensor, logits: Tensor, ids: Tensor,
        files: tuple[BinaryIO, BinaryIO], position: int,
    ) -> int:  # fmt: skip
        begin = position
        for key, count in zip(_keys(tokens, mask, labels), (labels[:, 1:] != IGNORED).sum(dim=1).tolist(), strict=True):
            self._places[key] = (begin, begin + count)
            begin += count
        # 16 bits end at 65504: a token that is further away has no probability at any temperature.
        files[0].write(logits.clamp(min=-60000).cpu().numpy().astype(np.float16).tobytes())
        files[1].write(ids.cpu().numpy().astype(np.int32).tobytes())
        return begin


def _keys(tokens: Tensor, mask: Tensor, labels: Tensor) -> list[bytes]:
    """What tells rows apart: their real tokens, and which of them are learned."""
    keys = []
    for row, real, learned in zip(tokens.cpu(), mask.cpu().bool(), labels.cpu(), strict=True):
        content = row[real].numpy().tobytes() + b"/" + learned[real].numpy().tobytes()
        keys.append(hashlib.blake2b(content, digest_size=16).digest())
    return keys
