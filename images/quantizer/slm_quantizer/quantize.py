"""A quantization run, top to bottom: fetch, convert, verify, evaluate, publish."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from slm_quantizer import adapters, effect, evaluate
from slm_quantizer.calibrate import calibration
from slm_quantizer.formats import backend
from slm_quantizer.onnx import on_cpu
from slm_quantizer.pack import finish, layers, name_end
from slm_quantizer.passes import QUIET, Passes, course, whole
from slm_quantizer.runtimes import Torch
from slm_quantizer.source import understood
from slm_quantizer.verify import look
from slm_trainer import evaluate as in_torch
from slm_trainer.encoding import texts, turn_end
from slmkit.data import Example, read_examples
from slmkit.facts import IMAGE_TYPE, Facts
from slmkit.metrics import Measured
from slmkit.metrics.roles import side_by_side
from slmkit.publish import describe, licence
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.safety.weights import parameters
from slmkit.sources import check_model_folder, fetch
from slmops.contract import Metric, QuantizeRun, Reason, Report

OF_THE_DEVICE = (Metric.INFERENCE_TIME, Metric.TIME_TO_FIRST_TOKEN, Metric.PEAK_MEMORY)
"""What measuring on another device says nothing of."""
PROMPTS = ("Hello.", "Set the lights to 40 percent at 06:30.", "What is the weather like today?", "1, 2, 3, 4,")


def quantize(run: QuantizeRun, context: Context) -> Report:
    """Build one variant and publish it."""
    maker = backend(run.format)
    registry = Registry(run.registry, meter=context)
    context.course = course(run)
    context.stage("Fetching")
    model = context.work / "model"
    context.inputs["model"] = fetch(run.model, model, registry)
    check_model_folder(model)
    tokenizer = understood(model, run)
    folders = adapters.fetched(run, context, registry)
    updates = adapters.updates(folders)
    examples = _examples(run, context, registry)
    pairs, end = [texts(tokenizer, example) for example in examples], turn_end(tokenizer)
    records = calibration(run, tokenizer, context, registry)
    pruning = effect.prune(model, run, records, context)
    source = pruning.folder if pruning else model
    built = maker.build(source, run, records, context.work, Passes(context))
    files = adapters.placed(built, updates, run.device) if updates else {}
    finish(built, run)
    name_end(built, end)
    context.check()
    context.stage("Verifying")
    tried = on_cpu(built, context.work / "on-cpu") if run.format == "ONNX" else built
    prompts = [*PROMPTS, *(prompt for prompt, _ in pairs[:8])]
    plain = look(Torch(source), partial(maker.load, tried), run.precision, prompts)
    similar = adapters.verified(model, tried, folders, files, plain, run.precision, prompts)
    pruned = None
    if pruning is not None:
        context.stage("Weighing")
        pruned = effect.measured(
            pruning, built, run, prompts, lambda work: maker.build(model, run, records, work, QUIET), context
        )
    seen: dict[str, Measured] = {}
    if examples and run.evaluation is not None:
        context.stage("Evaluating")
        count = parameters(model)
        seen = {
            role: replace(found, figures=found.figures.model_copy(update={"parameters": count}))
            for role, found in _measured(model, tried, run, examples, pairs, end, context).items()
        }
    figures = side_by_side(seen)
    context.check()
    context.stage("Publishing")
    facts = Facts(run, dict(context.inputs), IMAGE_TYPE, figures, licence(context))
    annotations = {
        **facts.annotations(),
        "org.opencontainers.image.title": f"{run.name}-{run.variant}",
        "slmops.dev/format": run.format,
        "slmops.dev/precision": run.precision,
        **({"slmops.dev/sparsity": f"{pruned.sparsity:.4g}"} if pruned else {}),
    }
    packed = layers(built, run.name, run.compression)
    image = registry.push_image(run.output, packed, annotations, architecture=run.architecture)
    inside = adapters.packed(registry, run, image, similar) if similar else {}
    image = describe(registry, run.output, context, image, facts)
    return Report(outcome="Succeeded", artifacts={"image": image}, evaluation=figures, verification=plain.verification,
                  pruned=pruned, adapters=inside)  # fmt: skip


def _measured(
    model: Path, built: Path, run: QuantizeRun, examples: list[Example], pairs: list[tuple[str, str | None]],
    end: int | None, context: Context,
) -> dict[str, Measured]:  # fmt: skip
    """Figures of the variant and of the unquantized model, both in the same runtime. ``end``: the token that ends an
    answer, where the chat template has one."""
    wanted = run.evaluation
    assert wanted is not None
    if run.device != "CPU":
        wanted = wanted.model_copy(update={"metrics": tuple(m for m in wanted.metrics if m not in OF_THE_DEVICE)})
    if run.format != "ONNX":
        found = in_torch.measure(built, examples, wanted, context)
        context.stage("Evaluating reference")
        return {"model": found, "reference": in_torch.measure(model, examples, wanted, context)}
    found = evaluate.measure(built, pairs, examples, wanted, context)
    if whole(run):
        return {"model": found, "reference": found}
    context.stage("Evaluating reference")
    full = run.model_copy(update={"precision": "FP32", "algorithm": "RTN", "device": "CPU"})
    beside = context.work / "reference"  # a pruned variant in FP32 has its folder where this one would be
    beside.mkdir()
    reference = backend("ONNX").build(model, full, None, beside, QUIET)
    name_end(reference, end)
    return {"model": found, "reference": evaluate.measure(reference, pairs, examples, wanted, context)}


def _examples(run: QuantizeRun, context: Context, registry: Registry) -> list[Example]:
    wanted = run.evaluation
    if wanted is None or wanted.data is None:
        return []
    folder: Path = context.work / "data"
    context.inputs["evaluation"] = fetch(wanted.data.source, folder, registry, "dataset")
    found = [example for example in read_examples(wanted.data, folder) if example.completion is not None]
    if not found:
        raise RunFailed(Reason.INVALID_DATA, f"{wanted.data.source.uri}: no record has an answer to measure by")
    return found[: wanted.samples]
