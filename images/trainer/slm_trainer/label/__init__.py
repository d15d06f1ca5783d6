"""A labelling run: a teacher answers every prompt, and the answers become a data set. ``run.py`` reads top to bottom."""

from slm_trainer.label.run import label

__all__ = ["label"]
