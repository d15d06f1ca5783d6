"""A measurement in a process of its own, so that one model's memory is not counted to another."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmkit.run import RunFailed
from slmops.contract import Figures, Reason


def measure_apart(module: str, asked: Mapping[str, Any], work: Path, reason: Reason, trouble: str) -> Figures:
    """Run a module with a file that holds what is asked; the last line that it prints are the figures.

    Raises RunFailed for ``reason`` with ``trouble`` and its last words, or OutOfMemory when it was killed.
    """
    file = work / "evaluate.json"
    file.write_text(json.dumps(asked))
    done = subprocess.run([sys.executable, "-m", module, str(file)], capture_output=True, text=True, check=False)
    file.unlink()
    if done.returncode == -signal.SIGKILL:
        raise RunFailed(Reason.OUT_OF_MEMORY, "the evaluation was killed, which the kernel does when memory runs out")
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise RunFailed(reason, f"{trouble}: {said[0]}")
    return Figures.model_validate_json(done.stdout.splitlines()[-1])
