"""The training loop: forward, backward, step. Reads top to bottom."""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from slm_trainer.objectives import Objective
from slm_trainer.tokens import Record, batches
from slmkit.run import Context, RunFailed
from slmops.contract import Hyperparameters, Reason

REPORT_EVERY = 5


def fit(
    model: Any, records: Sequence[Record], wanted: Hyperparameters, pad: int, objective: Objective, context: Context
) -> None:
    """Train in place. Raises RunFailed when the loss is no number any more, or the pod is being taken away."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    objective.extra.to(device).train()
    trainable = [p for part in (model, objective.extra) for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=wanted.learning_rate, weight_decay=wanted.weight_decay,
                                  betas=(0.9, 0.95), fused=True)  # fmt: skip
    steps = total_steps(len(records), wanted)
    context.stage("Training", of=steps)
    smooth, seen, begun = 0.0, 0, time.monotonic()
    step = part = epoch = 0
    while step < steps:
        for tokens, mask, labels in batches(records, wanted.batch_size, pad, wanted.seed + epoch):
            tokens, mask, labels = tokens.to(device), mask.to(device), labels.to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted.precision == "BF16"):
                output = model(input_ids=tokens, attention_mask=mask, **objective.options)
            loss = objective.loss(output, tokens, mask, labels)
            (loss / wanted.gradient_accumulation).backward()
            seen += int(mask.sum())
            part += 1
            if part % wanted.gradient_accumulation:
                continue
            torch.nn.utils.clip_grad_norm_(trainable, wanted.max_gradient_norm)
            for group in optimizer.param_groups:
                group["lr"] = wanted.learning_rate * rate(step, steps, wanted)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            value = float(loss.detach())
            if not math.isfinite(value):
                raise RunFailed(Reason.TRAINING_DIVERGED, f"the loss is {value} at step {step} of {steps}")
            smooth = value if step == 1 else 0.95 * smooth + 0.05 * value
            if step % REPORT_EVERY == 0 or step == steps:
                context.check()
                context.step(step, loss=smooth, tokens_per_second=seen / (time.monotonic() - begun))
            if step == steps:
                break
        epoch += 1
    model.eval()


def total_steps(records: int, wanted: Hyperparameters) -> int:
    """Optimizer steps of a whole training."""
    per_epoch = math.ceil(records / wanted.batch_size) / wanted.gradient_accumulation
    steps = max(1, math.floor(per_epoch * wanted.epochs))
    return min(steps, wanted.max_steps) if wanted.max_steps else steps


def rate(step: int, steps: int, wanted: Hyperparameters) -> float:
    """Share of the peak learning rate at a step, from 0."""
    warmup = math.ceil(steps * wanted.warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if wanted.scheduler == "Linear":
        return 1 - done
    if wanted.scheduler == "Cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
