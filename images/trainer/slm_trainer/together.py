"""Whether a training is one of several processes. Known without PyTorch's launcher, and for other runs without PyTorch."""

import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from slmops.contract import AnyRun, TrainRun


def needed(run: TrainRun) -> bool:
    """Whether it is one of several processes, and this is not yet one of them."""
    return "RANK" not in os.environ and run.nodes * processes() > 1


def measures() -> bool:
    """Whether this process has models measured: of several that train together, the first one does."""
    return os.environ.get("RANK", "0") == "0"


def training(arguments: list[str]) -> TrainRun | None:
    """The training that is to be run; None for other runs. What cannot be read is left to the run itself, which says so."""
    if len(arguments) != 1:
        return None
    try:
        run = TypeAdapter(AnyRun).validate_json(Path(arguments[0]).read_bytes())
    except (OSError, ValidationError):
        return None
    return run if isinstance(run, TrainRun) else None


def processes() -> int:
    """How many of them a pod runs."""
    import torch

    return max(1, torch.cuda.device_count())
