"""The teacher's likeliest next tokens for every record, computed once and kept on disk.

Two files of fixed width, mapped into memory and never read whole: 16-bit differences to the likeliest token's logit
(exact to a two-thousandth of the difference) and 32-bit token ids, 6 bytes for each of the k tokens of a position. A third
one says where each record's are, 24 bytes a record; in memory stays an entry a record.

They lie in a folder named by all that they follow from, which is made under another name, synced and renamed: what is
there is whole, and of this teacher and these records. On a volume the next attempt takes it and asks the teacher nothing.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm_trainer.checkpoints import sync
from slm_trainer.losses import IGNORED, likeliest
from slm_trainer.store import digest
from slm_trainer.tokens import Record, batches
from slmkit.run import Context, RunFailed
from slmops.contract import Reason

PLACE = np.dtype([("key", "V16"), ("end", "<u8")])
"""Of each record: what it is known by, and where its positions end; they begin where those of the one before end."""


class Hints:
    """A cache of (logits, token ids) by what a row of a batch holds, so that order and padding do not matter.

    ``folder``: for those of any teachers; ``teacher``: its address by digest.
    """

    def __init__(self, folder: Path, k: int, teacher: str = "") -> None:
        self._folder, self._k, self._teacher = folder, k, teacher
        self._places: dict[bytes, tuple[int, int]] = {}
        self._logits: Any = None
        self._ids: Any = None

    def fill(
        self, load: Callable[[], Any], records: Sequence[Record], size: int, vocabulary: int, context: Context
    ) -> None:
        """Ask the teacher that ``load`` returns about every record, once, whichever attempt this is. It is not needed after
        that."""
        self._k = min(self._k, vocabulary)
        kept = self._folder / _subject(self._teacher, self._k, vocabulary, records)
        if not self._open(kept):
            # Processes of a group may share the volume. Each asks, and what the first one has kept is for all.
            scratch = self._folder / f".{kept.name}-{os.environ.get('RANK', '0')}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            self._ask(load(), records, size, vocabulary, context, scratch)
            _publish(scratch, kept)
            self._open(kept)

    def _ask(
        self, teacher: Any, records: Sequence[Record], size: int, vocabulary: int, context: Context, folder: Path
    ) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        teacher.to(device).eval()
        context.stage("Asking the teacher", of=len(records))
        done = position = 0
        with (
            (folder / "logits").open("wb") as logits_file,
            (folder / "ids").open("wb") as ids_file,
            (folder / "places").open("wb") as places_file,
        ):
            for tokens, mask, labels in batches(records, size, 0, 0):
                context.check()
                with torch.inference_mode():
                    shown = teacher(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits
                    logits, ids = likeliest(shown, labels.to(device), self._k, vocabulary)
                # 16 bits end at 65504: a token that is further away has no probability at any temperature.
                logits_file.write(logits.clamp(min=-60000).cpu().numpy().astype(np.float16).tobytes())
                ids_file.write(ids.cpu().numpy().astype(np.int32).tobytes())
                ends = position + (labels[:, 1:] != IGNORED).sum(dim=1).cumsum(0)
                places = np.array([*zip(_keys(tokens, mask, labels), ends.tolist(), strict=True)], PLACE)
                places_file.write(places.tobytes())
                position = int(ends[-1])
                done += len(tokens)
                context.step(done)

    def _open(self, folder: Path) -> bool:
        """Whether they are there, and as long as they were written."""
        places, sizes = np.empty(0, PLACE), []
        with suppress(FileNotFoundError):
            places = np.fromfile(folder / "places", PLACE)
            sizes = [(folder / name).stat().st_size for name in ("logits", "ids")]
        ends = places["end"].tolist()
        shape = (ends[-1] if ends else 0, self._k)
        if sizes != [shape[0] * self._k * width for width in (2, 4)]:
            shutil.rmtree(folder, ignore_errors=True)
            return False
        self._places = dict(zip(places["key"].tolist(), zip([0, *ends], ends, strict=False), strict=True))
        if shape[0]:
            self._logits = np.memmap(folder / "logits", np.float16, "r", shape=shape)
            self._ids = np.memmap(folder / "ids", np.int32, "r", shape=shape)
        return True

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


def _subject(teacher: str, k: int, vocabulary: int, records: Sequence[Record]) -> str:
    """All that the hints follow from, as a hash."""
    whole = [teacher, k, vocabulary, digest(records)]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:32]


def _publish(scratch: Path, kept: Path) -> None:
    """Let a folder have its name, once all of it is on the disk."""
    for path in (*scratch.iterdir(), scratch):
        sync(path)
    try:
        scratch.rename(kept)
    except OSError:  # another process of the group was first, with the same
        if not kept.is_dir():
            raise
        shutil.rmtree(scratch)
    sync(kept.parent)


def _keys(tokens: Tensor, mask: Tensor, labels: Tensor) -> list[bytes]:
    """What tells rows apart: their real tokens, and which of them are learned."""
    keys = []
    for row, real, learned in zip(tokens.cpu(), mask.cpu().bool(), labels.cpu(), strict=True):
        content = row[real].numpy().tobytes() + b"/" + learned[real].numpy().tobytes()
        keys.append(hashlib.blake2b(content, digest_size=16).digest())
    return keys
