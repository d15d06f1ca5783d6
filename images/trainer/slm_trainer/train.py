"""A training run, top to bottom: sources, data, model, loop, evaluation, publication."""

import gc
import logging
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from slm_trainer import tasks
from slm_trainer.curves import Curves
from slm_trainer.dataset.sets import prepare
from slm_trainer.distributed import Group, group_of_this_process
from slm_trainer.encoding import turn_end
from slm_trainer.evaluate import choose, measure
from slm_trainer.forgetting import base_task, matching
from slm_trainer.lessons import lessons
from slm_trainer.loop import fit
from slm_trainer.model import load_model, load_tokenizer, new_model, save, save_memory, train_tokenizer
from slm_trainer.objectives import objective_of
from slm_trainer.packing import prove
from slm_trainer.precision import decided
from slm_trainer.recipes import RECIPES, adopt
from slm_trainer.search.page import write_page
from slm_trainer.search.referee import Referee
from slm_trainer.tokens import encode
from slm_trainer.watch import Watch
from slmkit.adapters import publish_layer
from slmkit.data import Example
from slmkit.metrics import Measured
from slmkit.metrics.roles import side_by_side
from slmkit.publish import beside, publish
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import ADAPTER_TYPE, LOGS_TYPE, MODEL_TYPE, REPORT_TYPE, Reason, Report, Source, TrainRun

log = logging.getLogger("slm_trainer")


def train(run: TrainRun, context: Context) -> Report:
    """Train a model and publish it."""
    run = decided(run)
    registry = Registry(run.registry, meter=context)
    group = group_of_this_process()
    seed_everything(run.hyperparameters.seed)
    context.stage("Fetching")
    sets = prepare(run, context, registry)
    tasks.check(run.task, sets.training, *sets.apart)
    model, tokenizer = _model(run, context, registry, sets.training)
    endless = turn_end(tokenizer) is None
    if endless:
        log.warning("the chat template ends an answer with no token of its own: answers go on to their limit")
    context.check()
    records, dropped = lessons(run, tokenizer, sets.training, context.work / "tokens", context)
    sets.tally.lose("SequenceTooLong", dropped)
    watched, measured = (
        choose(part, run.evaluation.samples, run.hyperparameters.seed) for part in (sets.watched, sets.held_out)
    )
    if run.trial:  # what is chosen by the last figures would flatter them
        measured = watched
    if not measured:
        raise RunFailed(Reason.INVALID_DATA, "no held-out record has an answer to measure by")
    kept = base_task(run, context, registry)
    objective = objective_of(run, _teacher(run, context, registry), model, tokenizer, records, context)
    context.check()
    seen: dict[str, Measured] = {}
    if run.evaluation.untrained_baseline and group.leads and run.trial is None:
        context.stage("Evaluating baseline")
        release()
        save(model, tokenizer, context.work / "baseline")
        seen["baseline"] = measure(context.work / "baseline", measured, run.evaluation, context)
        if kept:
            seen["baseTaskBefore"] = measure(context.work / "baseline", kept, matching(run), context)
    base, recipe = context.work / "base" if run.base else None, RECIPES[run.method]
    learned, logs, referee = None, {}, None
    if run.adapter is None:
        if run.hyperparameters.packing:  # in full precision: what four bits round is more than the bound
            prove(model, records, tokenizer.pad_token_id)
        model = recipe.prepare(model, base, run)
        if run.hyperparameters.gradient_checkpointing:
            save_memory(model)
        referee = Referee(run.trial) if run.trial else None
        watch = _watch(run, context, tokenizer, watched, group, referee)
        learned = fit(model, records, run.hyperparameters, tokenizer.pad_token_id, objective, context, watch, group)
        if not group.leads:
            group.wait(context.stopping)
            return Report(outcome="Succeeded")
        learned = learned.model_copy(update={"endless": endless})
        logs = watch.curves.close()
        if referee and run.trial and (referee.pruned or run.trial.search.metric == "evalLoss"):
            group.finish()
            return Report(outcome="Succeeded", trial=referee.result(learned.eval_loss))
    else:
        context.stage("Fetching")
        adopted = context.work / "adopted"
        context.inputs["adapter"] = fetch(run.adapter, adopted, registry, "dataset")  # it has no licence of its own
        model, recipe = adopt.prepare(model, adopted), adopt
    context.stage("Evaluating")
    del objective  # a teacher of features with it
    model, adapter = recipe.finish(model.to("cpu"), base, context.work)
    files = save(model, tokenizer, context.work / "model")
    release()
    seen["model"] = measure(context.work / "model", measured, run.evaluation, context)
    if referee:
        group.finish()
        return Report(outcome="Succeeded", trial=referee.result(seen["model"].figures.exact_match))
    if kept:
        seen["baseTask"] = measure(context.work / "model", kept, matching(run), context)
    for name, source in run.evaluation.compare.items():
        context.stage("Fetching")
        folder = _fetch(source, f"compare-{name}", name, context, registry)
        context.stage(f"Evaluating {name}"[:32])
        seen[name] = measure(folder, measured, run.evaluation, context)
    figures = side_by_side(seen)
    context.check()
    context.stage("Publishing")
    artifacts = {}
    if logs:
        artifacts["logs"] = beside(registry, run, context, logs, LOGS_TYPE)
    if adapter:
        artifacts["adapter"] = publish(registry, run, context, adapter, ADAPTER_TYPE, figures)
    if adapter and run.layer:
        artifacts["layer"] = publish_layer(registry, run, context, adapter)
    if not adapter or run.merge:
        artifacts["model"] = publish(registry, run, context, files, MODEL_TYPE, figures)
    if run.filters is not None:
        artifacts["data"] = beside(registry, run, context, sets.report(run, context), REPORT_TYPE)
    if run.searched is not None:
        page = write_page(run.searched, run.run, context.work / "search-page")
        artifacts["search"] = beside(registry, run, context, page, REPORT_TYPE)
    group.finish()
    return Report(outcome="Succeeded", artifacts=artifacts, evaluation=figures, learning=learned,
                  dataset=sets.counts(records.answers))  # fmt: skip


def _watch(
    run: TrainRun, context: Context, tokenizer: Any, watched: list[Example], group: Group, referee: Referee | None
) -> Watch:
    """Held-out records whose loss is followed while the model trains."""
    longest = run.hyperparameters.max_sequence_length
    held_out, _ = encode(tokenizer, watched, longest, context.work / "held-out-tokens")
    if not held_out and (run.hyperparameters.early_stopping or referee):
        raise RunFailed(Reason.INVALID_DATA, f"{'a search' if referee else 'early stopping'} needs held-out records: all "
                        f"of them are longer than maxSequenceLength {longest}")  # fmt: skip
    curves = Curves(context.state / "logs" if group.leads else None)
    return Watch(held_out, run.hyperparameters, tokenizer.pad_token_id, curves, referee)


def _fetch(source: Source, folder: str, role: str, context: Context, registry: Registry) -> Path:
    into = context.work / folder
    context.inputs[role] = fetch(source, into, registry)
    return into


def _model(run: TrainRun, context: Context, registry: Registry, training: Iterable[Example]) -> tuple[Any, Any]:
    if run.base is not None:
        folder = _fetch(run.base, "base", "base", context, registry)
        return load_model(folder), load_tokenizer(folder, run.template)
    if run.architecture is None:
        raise RunFailed(Reason.INVALID_CONFIGURATION, "one of base and architecture is needed")
    if run.architecture.tokenizer is not None:
        folder = _fetch(run.architecture.tokenizer, "tokenizer", "tokenizer", context, registry)
        tokenizer = load_tokenizer(folder)
    else:
        tokenizer = train_tokenizer(training, run.architecture.vocabulary_size)
    return new_model(run.architecture, tokenizer), tokenizer


def _teacher(run: TrainRun, context: Context, registry: Registry) -> Path | None:
    """Folder of the weights that show more than words."""
    if run.objective.teacher is None:
        return None
    return _fetch(run.objective.teacher, "teacher", "teacher", context, registry)


def release() -> None:
    """Give back what this process holds of a GPU's memory and needs no more: another process measures there now."""
    gc.collect()
    torch.cuda.empty_cache()


def seed_everything(seed: int) -> None:
    """Same seed, same numbers."""
    random.seed(seed)
    torch.manual_seed(seed)
    if torch.cuda.is_available():  # what CPUs compute has one order of summing already
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Of the kernels for attention only the plain one repeats itself. Flash does so where operations without a
        # deterministic form are refused, which would end runs of models that have any.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
