"""How many steps there are, and how large each may be. Pure functions."""

import math

from slmops.contract import Hyperparameters

COOLDOWN = 0.2
"""Share of the steps over which WarmupStableDecay lets the learning rate fall."""


def steps_an_epoch(units: int, wanted: Hyperparameters) -> int:
    """Optimizer steps of an epoch of so many records, or rows where records are packed."""
    return math.ceil(math.ceil(units / wanted.batch_size) / wanted.gradient_accumulation)


def total_steps(per_epoch: int, wanted: Hyperparameters) -> int:
    """Optimizer steps of a whole training of ``per_epoch`` steps an epoch."""
    steps = max(1, per_epoch * wanted.epochs)
    return min(steps, wanted.max_steps) if wanted.max_steps else steps


def measure_every(per_epoch: int, wanted: Hyperparameters) -> int:
    """Steps between two measurements of the loss on held-out records."""
    return wanted.evaluate_every or max(1, per_epoch)


def rate(step: int, steps: int, wanted: Hyperparameters) -> float:
    """Share of the peak learning rate at a step, from 0. No step is made for nothing: the first is above zero."""
    warmup = math.ceil(steps * wanted.warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if wanted.scheduler == "Linear":
        return 1 - done
    if wanted.scheduler == "Cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if wanted.scheduler == "WarmupStableDecay":
        # Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
        # arXiv 2405.18392, section 3: constant, then one minus the square root of the cooldown's progress.
        return 1 - math.sqrt(max(0.0, done - (1 - COOLDOWN)) / COOLDOWN)
    return 1.0
