"""A training's state on disk: written whole or not at all, read only if whole.

A checkpoint is a folder ``step-<n>``: tensors as safetensors, the rest as JSON, and in ``checkpoint.json`` the SHA-256 of
each file. It is written under another name, synced to the disk and renamed, so a kill at any moment leaves the one before
as it was. Nothing of it is ever unpickled.
"""

import hashlib
import json
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

log = logging.getLogger(__name__)
SUMS, STATE, REACHED = "checkpoint.json", "state.json", "reached"
NOTED_EVERY = 1.0
"""Seconds between two notes of how far the training is."""


class Part(Protocol):
    """Something that training changes: what it says of itself, nested dictionaries of tensors and plain values, brings it
    back to where it was."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class Checkpoints:
    """The checkpoints of one training, in a folder that outlives the pod.

    ``subject`` says what is trained and on what: a checkpoint of anything else is not taken.
    """

    def __init__(self, folder: Path, every: int, keep: int, subject: Mapping[str, Any],
                 clock: Callable[[], float] = time.monotonic) -> None:  # fmt: skip
        self._folder, self._every, self._keep = folder, every, keep
        self._subject = json.loads(json.dumps(subject))
        self._clock, self._noted = clock, -NOTED_EVERY
        self.last: int | None = None
        """Step of the newest one."""
        self.resumes = 0
        """How often the training was taken up again."""
        self.lost = 0
        """Steps that were made and had to be made again."""
        self._useless: list[Path] = []
        """What ``load`` passed over."""
        folder.mkdir(parents=True, exist_ok=True)

    def due(self, step: int) -> bool:
        """Whether one is to be written after this step."""
        return step % self._every == 0

    def note(self, step: int) -> None:
        """Remember that this step was made, so that the next attempt knows what was lost. Once in a while."""
        if self._clock() - self._noted >= NOTED_EVERY:
            self.mark(step)

    def mark(self, step: int) -> None:
        """Remember it now, with what was counted: an attempt that ends before its first checkpoint has been one. Not
        synced: these are figures for people."""
        self._noted = self._clock()
        scratch = self._folder / f".{REACHED}"
        scratch.write_text(json.dumps({"step": step, "resumes": self.resumes, "lost": self.lost}))
        scratch.replace(self._folder / REACHED)

    def save(self, step: int, parts: Mapping[str, Part]) -> None:
        """Write one, and remove those that are no longer kept. Raises OSError when the disk is full."""
        target = self._folder / f"step-{step:09}"
        scratch = self._folder / f".{target.name}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        plain = {}
        for name, part in parts.items():
            tensors: dict[str, Tensor] = {}
            plain[name] = _packed(part.state_dict(), tensors)
            save_file(tensors, scratch / f"{name}.safetensors")
        state = {"step": step, "resumes": self.resumes, "lost": self.lost, "subject": self._subject, "parts": plain}
        (scratch / STATE).write_text(json.dumps(state))
        (scratch / SUMS).write_text(json.dumps({path.name: _sha256(path) for path in sorted(scratch.iterdir())}))
        for path in (*scratch.iterdir(), scratch):
            sync(path)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
        sync(self._folder)
        self.last = step
        for old in self._newest_first()[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self, parts: Mapping[str, Part]) -> int:
        """Bring the parts to the newest checkpoint that is whole and of this training. Returns its step; 0 where there is
        none, and then the parts are as they were."""
        for folder in self._newest_first():
            try:
                state, tensors = self._read(folder, parts)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
                log.warning("checkpoint", extra={"skipped": folder.name, "because": f"{type(error).__name__}: {error}"})
                self._useless.append(folder)
                continue
            for name, part in parts.items():
                part.load_state_dict(_unpacked(state["parts"][name], tensors[name]))
            step = int(state["step"])
            before = self._reached()
            lost = max(0, before["step"] - step)
            self.last = step
            self.resumes = max(state["resumes"], before["resumes"]) + 1
            self.lost = max(state["lost"], before["lost"]) + lost
            log.info("checkpoint", extra={"resumed": step, "lost": lost})
            return step
        return 0

    def prune(self) -> None:
        """Remove what ``load`` passed over: torn, or of another training. It would count among those that are kept, and
        before the new ones where its step is higher."""
        for folder in self._useless:
            shutil.rmtree(folder, ignore_errors=True)
        self._useless.clear()

    def _read(self, folder: Path, parts: Mapping[str, Part]) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
        """Everything is read and compared before anything is changed."""
        sums = json.loads((folder / SUMS).read_bytes())
        for name in (STATE, *(f"{part}.safetensors" for part in parts)):
            if sums[name] != _sha256(folder / name):
                raise ValueError(f"{name} is not as it was written")
        state = json.loads((folder / STATE).read_bytes())
        if state["subject"] != self._subject:
            raise ValueError("it is of another training")
        return state, {part: load_file(folder / f"{part}.safetensors") for part in parts}

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"), reverse=True)

    def _reached(self) -> dict[str, int]:
        try:
            found = json.loads((self._folder / REACHED).read_bytes())
            return {key: int(found[key]) for key in ("step", "resumes", "lost")}
        except (OSError, ValueError, KeyError, TypeError):
            return {"step": 0, "resumes": 0, "lost": 0}


class Weights:
    """What training changes of a model, by name: all weights, or an adapter's alone. A tied weight has one name."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def state_dict(self) -> dict[str, Any]:
        """The trainable weights."""
        return {name: p.detach() for name, p in self._module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them in place. Raises KeyError where the module has no such weight."""
        mine = dict(self._module.named_parameters())
        for name, value in state.items():
            mine[name].copy_(value)


class RandomNumbers:
    """Where the generators of random numbers are."""

    def state_dict(self) -> dict[str, Any]:
        """Python's, PyTorch's and the GPU's."""
        cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
        return {"python": random.getstate(), "torch": torch.get_rng_state()} | cuda

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set them."""
        random.setstate(state["python"])
        torch.set_rng_state(state["torch"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON that names the tensors which it holds. Raises TypeError for what is neither."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_packed(key, tensors), _packed(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_packed(item, tensors) for item in value]}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a checkpoint holds no {type(value).__name__}")


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The reverse of ``_packed``."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpacked(key, tensors): _unpacked(item, tensors) for key, item in content}
    items = [_unpacked(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """What was written is on the disk after this. Of a folder: the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
