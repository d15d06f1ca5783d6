"""What a teacher shows, and how a batch is judged by it: one file for each objective of a Distillation."""

from slm_trainer.objectives.base import Objective
from slm_trainer.objectives.choose import objective_of

__all__ = ["Objective", "objective_of"]
