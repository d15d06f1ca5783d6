"""A measurement in a process of its own, so that one model's memory is not counted to another.

What is asked goes in as a file, and what was seen comes back as one. In between the process says on its standard output
how many records are done.
"""

import json
import math
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from slmkit.memory import last_words
from slmkit.run import Context, RunFailed
from slmops.contract import Reason

DONE = "done "
"""Begins a line on progress."""
HOPELESS = 1e12
"""Nats that stand for a loss that is no number: JSON has none for it. They outweigh all records that a Job can have."""


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


def measure_apart(module: str, asked: Mapping[str, Any], context: Context, reason: Reason, trouble: str) -> Seen:
    """Run ``python -m module`` with the files of what is asked and of what is to be seen; its progress is ours.

    Raises RunFailed for ``reason`` with ``trouble`` and its last words, OutOfMemory when it was killed or says so,
    Terminated when we are told to stop meanwhile.
    """
    with tempfile.TemporaryDirectory(dir=context.work) as folder:
        question, answer, errors = (Path(folder, name) for name in ("asked.json", "seen.json", "errors"))
        question.write_text(json.dumps(asked))
        code = _run([sys.executable, "-m", module, str(question), str(answer)], errors, context)
        context.check()
        if code == -signal.SIGKILL:
            text = "the evaluation was killed, which the kernel does when memory runs out"
            raise RunFailed(Reason.OUT_OF_MEMORY, text)
        if code:
            said = errors.read_text(errors="replace").strip()
            if (words := last_words(said)) is not None:
                raise RunFailed(Reason.OUT_OF_MEMORY, f"the evaluation ran out of memory: {words}")
            raise RunFailed(reason, f"{trouble}: {(said.splitlines() or [f'exit code {code}'])[-1]}")
        return Seen.model_validate_json(answer.read_bytes())


def _run(command: list[str], errors: Path, context: Context) -> int:
    before = context.progress.step
    with errors.open("w") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process:
        threading.Thread(target=_stop, args=(process, context), daemon=True).start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(DONE):
                context.step(before + int(line.removeprefix(DONE)))
    return process.returncode


def _stop(process: subprocess.Popen[str], context: Context) -> None:
    """End it when we are told to stop: it has none of its own to tell it so."""
    while process.poll() is None:
        if context.stopping.wait(0.2):
            process.terminate()
            return


# --- in that process


def tell(records: int) -> None:
    """So many records are done."""
    print(f"{DONE}{records}", flush=True)


def finite(nats: float) -> float:
    """A loss that JSON can hold: HOPELESS where a token had no chance at all, or the model's numbers are none."""
    return nats if math.isfinite(nats) else HOPELESS


def peak_memory() -> int:
    """Most bytes of memory that this program had. ``ru_maxrss`` is no less than that of the program that started it, since
    it outlives exec; VmHWM begins anew (proc(5))."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    found = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return int(found.split()[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
