"""The parts of a training run that Distillation and FineTune describe in the same way."""

from typing import Any

from slmops import contract
from slmops.api.lora import Lora
from slmops.api.run import ResumableRun
from slmops.api.training import Training

DEFAULT_SPLIT = 0.1


def hyperparameters(training: Training, run: ResumableRun) -> contract.Hyperparameters:
    """The training loop's settings. Checkpoints are written where there is a volume to write them to."""
    settings = training.model_dump() | ({} if run.volume is not None else {"checkpoint": None})
    return contract.Hyperparameters.model_validate(settings)


def adapter(lora: Lora | None) -> contract.Lora:
    """Settings of an adapter."""
    wanted = lora or Lora()
    return contract.Lora.model_validate(wanted.model_dump() | {"target_modules": tuple(wanted.target_modules)})


def split(data: Any) -> float:
    """Share of the training data that is held out when no validation data are given."""
    return data.validation_split if data.validation_split is not None else DEFAULT_SPLIT
