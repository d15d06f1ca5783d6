"""The training loop: forward, backward, step. Reads top to bottom."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch.nn import ModuleList

from slm_trainer.checkpoints import RandomNumbers, Weights
from slm_trainer.curves import Curves
from slm_trainer.distributed import Group, lost_is_told
from slm_trainer.feed import Feed, weight
from slm_trainer.objectives import Objective
from slm_trainer.pace import Pace
from slm_trainer.precision import autocast, grad_scaler
from slm_trainer.resume import Kept, subject_of
from slm_trainer.schedule import measure_every, rate, total_steps
from slm_trainer.tokens import Record
from slm_trainer.watch import Watch
from slmkit.run import Context, RunFailed
from slmops.contract import Hyperparameters, Learning, Reason

REPORT_EVERY = 5


@lost_is_told()
def fit(
    model: Any, records: Sequence[Record], wanted: Hyperparameters, pad: int, objective: Objective, context: Context,
    watch: Watch | None = None, group: Group | None = None,
) -> Learning:  # fmt: skip
    """Train in place, from the newest checkpoint where there is one. Raises RunFailed when the loss is no number any more,
    or the pod is being taken away."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    group = group or Group()
    model.to(device).train()
    objective.extra.to(device).train()
    trainable = [p for part in (model, objective.extra) for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=wanted.learning_rate, weight_decay=wanted.weight_decay,
                                  betas=(0.9, 0.95), fused=True)  # fmt: skip
    scaler = grad_scaler(wanted.precision, device)
    feed, watch, pace = Feed(records, wanted, pad), watch or Watch((), wanted, pad, Curves()), Pace()
    steps, every = total_steps(feed.per_epoch, wanted), measure_every(feed.per_epoch, wanted)
    weights = Weights(ModuleList([model, objective.extra]))
    parts = {"optimizer": optimizer, "scaler": scaler, "watch": watch, "pace": pace, "random": RandomNumbers(),
             "weights": weights}  # fmt: skip
    subject = subject_of(wanted, records, steps, weights, context.inputs) if wanted.checkpoint else ""
    kept = Kept(wanted, context, group, parts, subject)
    group.assemble(context.stopping)
    step = begin = kept.begin()
    called = group.wrapped(model)
    context.stage("Training", of=steps, done=begin)
    left = 0 if watch.over else steps - begin
    for step, batches in enumerate(islice(feed.endless(begin), left), begin + 1):
        value = 0.0
        for whole in batches:
            batch = group.share(whole).to(device)
            with group.exchanging(called, whole is batches[-1]), autocast(wanted.precision, device):
                output = called(**batch.inputs(), **objective.options)
            if batch.answered:
                loss = objective.loss(output, batch.tokens, batch.mask, batch.labels) * weight(batch, batches)
            else:  # each process has a gradient of each weight; a sum of halves would be infinite, and zero times that none
                loss = output.logits[:, 0].float().sum() * 0.0
            with group.exchanging(called, whole is batches[-1]):
                scaler.scale(loss * group.size).backward()
            value += float(loss.detach())
        value, stopping = group.total(value, context.stopping.is_set())
        if not math.isfinite(value):
            raise RunFailed(Reason.TRAINING_DIVERGED, f"the loss is {value} at step {step} of {steps}")
        group.average(objective.extra.parameters())
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trainable, wanted.max_gradient_norm)
        share = rate(step - 1, steps, wanted)
        for parameters in optimizer.param_groups:
            parameters["lr"] = wanted.learning_rate * share
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        pace.step(value, sum(int(whole.mask.sum()) for whole in batches))
        speed, last = pace.speed, step == steps
        watch.curves.add(step, train_loss=value, learning_rate=wanted.learning_rate * share, tokens_per_second=speed)
        with pace.paused():
            over = watch.look(model, step, steps, every)
            kept.after(step, last or over, stopping)
        if step % REPORT_EVERY == 0 or last or step == begin + 1:
            report(context, kept, step, pace)
        if over:
            break
    learned = watch.finish(model, step)
    model.eval()
    return learned


def report(context: Context, kept: Kept, step: int, pace: Pace) -> None:
    """Say how far the training is. Where the answer is that it has to end, this step is kept first."""
    try:
        context.step(step, loss=pace.loss, tokens_per_second=pace.speed)
    except RunFailed:
        kept.save(step)
        raise
