"""Formats whose tool chain has a Python of its own: a program in the image, which builds, and answers for verification.

``/opt/backends/<format in small letters>/run`` gets one argument, a file with what is asked, and writes what it says to the
file that ``answer`` names. Asked is either of

    {"do": "build", "model": FOLDER, "out": FOLDER, "precision": …, "algorithm": …, "block_size": …, "symmetric": …,
     "answer": FILE}        says {}; the folder holds the result
    {"do": "say", "model": FOLDER, "prompts": [TEXT, …], "limit": TOKENS, "answer": FILE}
                            says [{"tokens": […], "read_back": TEXT, "logits": […], "greedy": […]}, …]

A program that ends with another code than 0, or without an answer, has failed; the last line of its standard error says
why. All that it prints goes to the log as it comes.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slm_quantizer.passes import QUIET, Passes, converting
from slm_quantizer.runtimes import Said
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Reason

BACKENDS = Path("/opt/backends")
STDERR = 2
LINE = 1 << 16
"""Characters that are read at once: a bar that goes on for hours is one line."""


def program(format: str) -> Path:
    """The program of a format, there or not."""
    return BACKENDS / format.lower() / "run"


def build(model: Path, run: QuantizeRun, records: Path | None, work: Path, passes: Passes = QUIET) -> Path:
    """Have the program convert a checked model folder. Returns the folder with the result."""
    passes.begin(converting(run.format))
    out = work / run.format.lower()
    out.mkdir()
    asked = {"do": "build", "model": str(model), "out": str(out), "precision": run.precision, "algorithm": run.algorithm,
             "block_size": run.block_size, "symmetric": run.symmetric}  # fmt: skip
    _ask(run.format, asked, Reason.CONVERSION_FAILED)
    if not any(path.is_file() for path in out.iterdir()):
        raise RunFailed(
            Reason.CONVERSION_FAILED, f"the tool chain of {run.format} made nothing; its words are in the log"
        )
    return out


class Program:
    """The runtime of a format, behind its program."""

    def __init__(self, format: str, folder: Path) -> None:
        self._format, self._folder = format, folder

    def say(self, prompts: Sequence[str], limit: int) -> list[Said]:
        """All prompts in one process."""
        asked = {"do": "say", "model": str(self._folder), "prompts": list(prompts), "limit": limit}
        said = _ask(self._format, asked, Reason.VERIFICATION_FAILED)
        try:
            return [
                Said([int(token) for token in one["tokens"]], str(one["read_back"]),
                     np.asarray(one["logits"], dtype=np.float32), [int(token) for token in one["greedy"]])
                for one in said
            ]  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            text = f"the program of {self._format} does not answer as it should: {error!r}"
            raise RunFailed(Reason.VERIFICATION_FAILED, text) from None


def _ask(format: str, asked: dict[str, Any], reason: Reason) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "asked.json"), Path(folder, "answer.json")
        question.write_text(json.dumps(asked | {"answer": str(answer)}))
        code, last = _run(program(format), question)
        if code or not answer.is_file():
            raise RunFailed(
                reason, f"the tool chain of {format} failed: {last or f'exit code {code}, its words are in the log'}"
            )
        try:
            return json.loads(answer.read_bytes())
        except (ValueError, RecursionError) as error:
            raise RunFailed(reason, f"the tool chain of {format} answers with what is no JSON: {error}") from None


def _run(path: Path, question: Path) -> tuple[int, str]:
    """Run a program, and pass on what it prints. Returns its exit code and the last line of its standard error: what goes
    to the other stream may come later than it was said."""
    last = ""
    with subprocess.Popen([str(path), str(question)], stdout=STDERR, stderr=subprocess.PIPE, text=True,
                          errors="replace") as process:  # fmt: skip
        assert process.stderr is not None
        while line := process.stderr.readline(LINE):
            sys.stderr.write(line)
            last = line.strip()[:300] or last
    return process.returncode, last
