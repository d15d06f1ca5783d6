"""DoRA: LoRA whose updates turn the weights, beside a size of each that learns by itself (Liu et al. 2024,
arXiv 2402.09353)."""

from pathlib import Path
from typing import Any

from slm_trainer.recipes import lora
from slmops.contract import TrainRun


def prepare(model: Any, folder: Path | None, run: TrainRun) -> Any:
    """The model with updates that do nothing yet."""
    return lora.with_lora(model, run.lora, use_dora=True)


finish = lora.finish
