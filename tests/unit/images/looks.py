"""What a process that measures may do, for tests of who has it measure."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmkit.apart import Seen, peak_memory, tell


def killed(asked: Mapping[str, Any]) -> Seen:
    """As by the kernel."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def broken(asked: Mapping[str, Any]) -> Seen:
    """The model cannot be read."""
    raise FileNotFoundError(asked["folder"])


def complaining(asked: Mapping[str, Any]) -> Seen:
    """Its last words, but one, are in a file of the folder."""
    words = Path(asked["folder"], "words").read_text()
    print(f"Traceback\n{words}\nW0101 a warning at the end", file=sys.stderr)
    raise SystemExit(1)


def endless(asked: Mapping[str, Any]) -> Seen:
    """It does not come to an end."""
    time.sleep(600)
    raise AssertionError


def fine(asked: Mapping[str, Any]) -> Seen:
    """One answer."""
    tell(1)
    return Seen(answers=["a"], seconds=[0.5], peak_memory_bytes=7, weight_bytes=9)


def imported(asked: Mapping[str, Any]) -> Seen:
    """Whether a module was there before, and in which process; after noise."""
    print("noise")
    return Seen(answers=[str(asked["module"] in sys.modules)], peak_memory_bytes=1, weight_bytes=os.getppid())


def counted(asked: Mapping[str, Any]) -> Seen:
    """What it takes to do nothing."""
    return Seen(answers=[], peak_memory_bytes=peak_memory(), weight_bytes=0)
