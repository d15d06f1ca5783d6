"""Measurements, each in a process of its own, so that one model's memory is not counted to another.

They are forked from one process that has imported what they need: to import PyTorch and transformers takes longer than to
answer some prompts, and a run measures two models at least. That process is itself forked from the run where that can be
(``begin``), so that libraries are imported once for all, and is a fresh one else.
"""

import atexit
import contextlib
import gc
import importlib
import math
import os
import pkgutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from slmkit.memory import last_words
from slmkit.run import Context, RunFailed
from slmops.contract import Reason

HOPELESS = 1e12
"""Nats that stand for a loss that is no number: JSON has none for it. They outweigh all records that a Job can have."""


@dataclass(frozen=True)
class Look:
    """How models of one kind are measured."""

    function: str
    """``module:function``, from what is asked to ``Seen``."""
    imports: tuple[str, ...]
    """Modules that it needs, the large ones at least. To import them may start no thread."""


class Seen(BaseModel):
    """What a model did."""

    answers: list[str]
    """One for each record; none at all where the records ask nothing."""
    seconds: list[float] = []
    """Of whole answers, as far as they were timed."""
    first_token_seconds: list[float] = []
    nats: list[float] = []
    """Loss of each record's expected answer, the sum over its tokens; empty where it was not wanted."""
    tokens: list[int] = []
    """How many those were."""
    peak_memory_bytes: int
    weight_bytes: int
    parameters: int | None = None


def begin(look: Look) -> None:
    """Import what the look needs, and fork the process that measures. Before the run has a thread or uses a GPU: neither
    outlives a fork."""
    _import(look)
    gc.freeze()  # a collection would write to all that is shared
    _measurer("fork")


def measure_apart(look: Look, asked: Mapping[str, Any], context: Context, reason: Reason, trouble: str) -> Seen:
    """Have it looked at what is asked; its progress is ours.

    Raises RunFailed for ``reason`` with ``trouble`` and its last words, OutOfMemory when it was killed or says so,
    Terminated when we are told to stop meanwhile.
    """
    with tempfile.TemporaryDirectory(dir=context.work) as folder:
        errors, seen = Path(folder, "errors"), Path(folder, "seen.json")
        errors.touch()
        code = _measurer("spawn").look((look, dict(asked), errors, seen), context)
        context.check()
        if code == -signal.SIGKILL:
            text = "the evaluation was killed, which the kernel does when memory runs out"
            raise RunFailed(Reason.OUT_OF_MEMORY, text)
        if code:
            said = errors.read_text(errors="replace").strip()
            if (words := last_words(said)) is not None:
                raise RunFailed(Reason.OUT_OF_MEMORY, f"the evaluation ran out of memory: {words}")
            raise RunFailed(reason, f"{trouble}: {(said.splitlines() or [f'exit code {code}'])[-1]}")
        return Seen.model_validate_json(seen.read_bytes())


class _Measurer:
    """The process that forks itself for each measurement."""

    def __init__(self, method: str) -> None:
        begun = get_context(method)
        self._told, there = begun.Pipe()
        self._process = begun.Process(target=_serve, args=(there,))  # type: ignore[attr-defined]
        self._process.start()
        there.close()

    def alive(self) -> bool:
        return bool(self._process.is_alive())

    def look(self, asked: tuple[Look, dict[str, Any], Path, Path], context: Context) -> int:
        """Have it looked at what is asked. Returns the exit code of who looked."""
        before, child = context.progress.step, None
        try:
            self._told.send(asked)
            while True:
                match self._next(context):
                    case ("begun", pid):
                        child = pid
                    case ("done", records):
                        context.step(before + records)
                    case ("ended", code):
                        return int(code)
                    case None:  # when told to stop it is nobody else that tells the child
                        _end(child, signal.SIGTERM)
        except (EOFError, OSError):  # the kernel may choose this process when it ends one for its memory
            _end(child, signal.SIGKILL)
            self._process.join()
            return self._process.exitcode or -signal.SIGKILL

    def _next(self, context: Context) -> tuple[str, int] | None:
        """What is told next; None each moment once the run is told to stop. Raises EOFError where this process is gone: its
        ends of all pipes are held by who looks, too."""
        while not self._told.poll(0.2):
            if not self._process.is_alive():
                raise EOFError
            if context.stopping.is_set():
                return None
        told: tuple[str, int] = self._told.recv()
        return told

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._told.send(None)
        self._process.join()


_known: _Measurer | None = None
_mapped = 0
"""Bytes of libraries in the memory of the process that imported them."""


def _measurer(method: str) -> _Measurer:
    global _known
    if _known is None or not _known.alive():
        _known = _Measurer(method)
        atexit.register(_known.close)  # before multiprocessing waits for it
    return _known


def _import(look: Look) -> None:
    global _mapped
    for module in look.imports:
        with contextlib.suppress(Exception):  # who needs it says what is wrong
            importlib.import_module(module)
    _mapped = max(_mapped, _memory("RssFile"))


def _end(pid: int | None, number: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# --- in the process that forks itself


def _serve(run: Connection) -> None:
    """Measure what the run asks for, until it asks for no more, or is no more."""
    parent = parent_process()
    assert parent is not None
    while run in wait([run, parent.sentinel]):
        asked = run.recv()
        if asked is None:
            return
        _import(asked[0])
        process = get_context("fork").Process(target=_look, args=(run, *asked))
        process.start()
        process.join()
        run.send(("ended", process.exitcode))


# --- in the process that measures

_run: Connection | None = None


def _look(run: Connection, look: Look, asked: Mapping[str, Any], errors: Path, answer: Path) -> None:
    global _run
    _run = run
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at once, whatever a library is in the middle of
    with errors.open("w") as file:
        for stream in (sys.stdout, sys.stderr):  # libraries say things, and the run's log is in JSON
            os.dup2(file.fileno(), stream.fileno())
    _run.send(("begun", os.getpid()))
    answer.write_text(pkgutil.resolve_name(look.function)(asked).model_dump_json())


def tell(records: int) -> None:
    """So many records are done."""
    if _run is not None:
        _run.send(("done", records))


def finite(nats: float) -> float:
    """A loss that JSON can hold: HOPELESS where a token had no chance at all, or the model's numbers are none."""
    return nats if math.isfinite(nats) else HOPELESS


def peak_memory() -> int:
    """Most bytes of memory that this process had, with all libraries that were imported for it: to a fork those of their
    pages alone are counted that it has used. ``ru_maxrss`` is no less than that of the process that it came of; VmHWM
    begins anew with each (proc(5))."""
    return _memory("VmHWM") + max(0, _mapped - _memory("RssFile"))


def _memory(name: str) -> int:
    """A figure of this process in bytes; zero where the system does not tell it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
