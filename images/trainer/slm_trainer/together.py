"""Whether a training is one of several processes. Known without PyTorch's launcher, and for other runs without PyTorch."""

import os
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from slmops.contract import AnyRun, TrainRun


def needed(arguments: list[str]) -> TrainRun | None:
    """The run, where it is one of several processes and this is not yet one of them. What cannot be read is left to the
    run itself, which says so."""
    if "RANK" in os.environ or len(arguments) != 1:
        return None
    try:
        run = TypeAdapter(AnyRun).validate_json(Path(arguments[0]).read_bytes())
    except (OSError, ValidationError):
        return None
    return run if isinstance(run, TrainRun) and run.nodes * processes() > 1 else None


def processes() -> int:
    """How many of them a pod runs."""
    import torch

    return max(1, torch.cuda.device_count())
