"""What Olive made, judged by what lies there: it can end well with nothing, or with half a model.

And what it said meanwhile: it logs the errors that it goes on after, so that only there a full disk is told from a model
that cannot be converted.
"""

import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from slmkit.full import full
from slmkit.run import RunFailed
from slmkit.safety import check_runtime_folder
from slmops.contract import Reason

GENAI = "genai_config.json"
"""There in a folder for the edge runtime alone."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
"""One of them."""
SPARE = 1 << 20
"""Bytes. A disk with less of them is full: who writes to it gets no more than a part of a model."""


class Heard(logging.Handler):
    """Keeps the last error, and whether one was for want of space."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = ""
        self.full = False

    def emit(self, record: logging.LogRecord) -> None:
        """A record of Olive's."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None or record.levelno >= logging.ERROR:
            text = f"{type(error).__name__}: {error}" if error is not None else record.getMessage()
            self.said = " ".join(text.split())[:300]
            self.full = self.full or full(Exception(text))
        while error is not None:
            self.full = self.full or full(error)
            error = error.__cause__ or error.__context__


@contextmanager
def heard() -> Iterator[Heard]:
    """Listen to Olive."""
    handler = Heard()
    logger = logging.getLogger("olive")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


def check_made(folder: Path, wanted: Collection[str], what: str, olive: Heard, *, made: bool) -> None:
    """Raise RunFailed unless the folder holds the files that are wanted, and Olive says so, too (``made``). What is made
    for the edge runtime has to be a whole model that it would load. The reason is ConversionFailed, or DiskFull where that
    is the cause."""
    try:
        _whole(folder, wanted, made)
        if GENAI in wanted:
            check_runtime_folder(folder)
    except RunFailed as failed:
        if olive.full or shutil.disk_usage(folder.parent).free < SPARE:
            raise RunFailed(Reason.DISK_FULL, f"no space left: {folder}") from None
        why = f"Olive's last error: {olive.said}" if olive.said else "its own words are in the log"
        text = f"Olive made no {what} of this one: {failed.message}; {why}"
        raise RunFailed(Reason.CONVERSION_FAILED, text) from None


def _whole(folder: Path, wanted: Collection[str], made: bool) -> None:
    if not made:
        raise RunFailed(Reason.CONVERSION_FAILED, "it says so itself")
    for name in wanted:
        if not (folder / name).is_file():
            raise RunFailed(Reason.CONVERSION_FAILED, f"there is no {name}")
    served = GENAI in wanted
    if served and not any((folder / name).is_file() for name in TOKENIZERS):
        raise RunFailed(Reason.CONVERSION_FAILED, f"there is no tokenizer ({' or '.join(TOKENIZERS)})")
    for name in (*wanted, *(TOKENIZERS if served else ())):
        if (folder / name).is_file() and not (folder / name).stat().st_size:
            raise RunFailed(Reason.CONVERSION_FAILED, f"{name} is empty")
