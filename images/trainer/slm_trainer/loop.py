"""The training loop: forward, backward, step. Reads top to bottom."""

import math
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch

from slm_trainer.curves import Curves
from slm_trainer.feed import Feed, weight
from slm_trainer.objectives import Objective
from slm_trainer.precision import autocast, grad_scaler
from slm_trainer.schedule import measure_every, rate, total_steps
from slm_trainer.tokens import Record
from slm_trainer.watch import Watch
from slmkit.run import Context, RunFailed
from slmops.contract import Hyperparameters, Learning, Reason

REPORT_EVERY = 5


def fit(
    model: Any, records: Sequence[Record], wanted: Hyperparameters, pad: int, objective: Objective, context: Context,
    watch: Watch | None = None,
) -> Learning:  # fmt: skip
    """Train in place. Raises RunFailed when the loss is no number any more, or the pod is being taken away."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    objective.extra.to(device).train()
    trainable = [p for part in (model, objective.extra) for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=wanted.learning_rate, weight_decay=wanted.weight_decay,
                                  betas=(0.9, 0.95), fused=True)  # fmt: skip
    scaler = grad_scaler(wanted.precision, device)
    feed, watch = Feed(records, wanted, pad), watch or Watch((), wanted, pad, Curves())
    steps, every = total_steps(feed.per_epoch, wanted), measure_every(feed.per_epoch, wanted)
    context.stage("Training", of=steps)
    smooth, seen, begun, measuring = 0.0, 0, time.monotonic(), 0.0
    step = 0
    for step, group in enumerate(islice(feed.endless(), steps), 1):
        value = 0.0
        for batch in (batch.to(device) for batch in group):
            with autocast(wanted.precision, device):
                output = model(**batch.inputs(), **objective.options)
            loss = objective.loss(output, batch.tokens, batch.mask, batch.labels) * weight(batch, group)
            scaler.scale(loss).backward()
            value += float(loss.detach())
            seen += int(batch.mask.sum())
        if not math.isfinite(value):
            raise RunFailed(Reason.TRAINING_DIVERGED, f"the loss is {value} at step {step} of {steps}")
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trainable, wanted.max_gradient_norm)
        share = rate(step - 1, steps, wanted)
        for parameters in optimizer.param_groups:
            parameters["lr"] = wanted.learning_rate * share
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        smooth = value if step == 1 else 0.95 * smooth + 0.05 * value
        speed = seen / (time.monotonic() - begun - measuring)
        watch.curves.add(step, train_loss=value, learning_rate=wanted.learning_rate * share, tokens_per_second=speed)
        if step % REPORT_EVERY == 0 or step == steps:
            context.check()
            context.step(step, loss=smooth, tokens_per_second=speed)
        paused = time.monotonic()
        if watch.look(model, step, steps, every):
            break
        measuring += time.monotonic() - paused
    learned = watch.finish(model, step)
    model.eval()
    return learned
