"""Full training: every weight learns."""

from pathlib import Path
from typing import Any

from slmops.contract import TrainRun


def prepare(model: Any, folder: Path | None, run: TrainRun) -> Any:
    """The model as it is."""
    return model


def finish(model: Any, folder: Path | None, work: Path) -> tuple[Any, dict[str, Path]]:
    """The model as it is, and no adapter."""
    return model, {}
