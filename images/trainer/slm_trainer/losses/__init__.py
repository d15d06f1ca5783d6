"""What is minimized: pure functions of tensors, every formula with its source. One file for each kind of teaching."""

from slm_trainer.losses.contrastive import contrastive_loss, log_likelihood
from slm_trainer.losses.features import attention_loss, attention_map, hint_loss
from slm_trainer.losses.labels import IGNORED, answer_loss
from slm_trainer.losses.logits import distillation_loss, divergence, likeliest

__all__ = [
    "IGNORED",
    "answer_loss",
    "attention_loss",
    "attention_map",
    "contrastive_loss",
    "distillation_loss",
    "divergence",
    "hint_loss",
    "likeliest",
    "log_likelihood",
]
