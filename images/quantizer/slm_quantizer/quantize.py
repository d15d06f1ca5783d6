"""A quantization run, top to bottom: fetch, convert, verify, evaluate, publish."""

from pathlib import Path

from transformers import AutoTokenizer

from slm_quantizer.convert import convert
from slm_quantizer.evaluate import measure
from slm_quantizer.pack import finish, layers
from slm_quantizer.verify import verify
from slm_trainer.encoding import texts
from slmkit.data import Example, read_examples
from slmkit.facts import IMAGE_TYPE, Facts
from slmkit.metrics import Measured
from slmkit.metrics.roles import side_by_side
from slmkit.publish import describe, licence
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import check_model_folder, fetch
from slmops.contract import QuantizeRun, Reason, Report

PROMPTS = ("Hello.", "Set the lights to 40 percent at 06:30.", "What is the weather like today?", "1, 2, 3, 4,")


def quantize(run: QuantizeRun, context: Context) -> Report:
    """Build one variant and publish it."""
    registry = Registry(run.registry, meter=context)
    context.stage("Fetching")
    model = context.work / "model"
    context.inputs["model"] = fetch(run.model, model, registry)
    check_model_folder(model)
    examples = _examples(run, context, registry)
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    pairs = [texts(tokenizer, example) for example in examples]
    context.stage("Converting")
    built = convert(model, run, context.work)
    finish(built, run)
    context.check()
    context.stage("Verifying")
    verify(model, built, run.precision, [*PROMPTS, *(prompt for prompt, _ in pairs[:8])])
    seen: dict[str, Measured] = {}
    if examples and run.evaluation is not None:
        context.stage("Evaluating")
        seen["model"] = seen["reference"] = measure(built, pairs, examples, run.evaluation, context)
        if run.precision != "FP32":
            full = convert(model, run.model_copy(update={"precision": "FP32"}), context.work)
            seen["reference"] = measure(full, pairs, examples, run.evaluation, context)
    figures = side_by_side(seen)
    context.check()
    context.stage("Publishing")
    facts = Facts(run, dict(context.inputs), IMAGE_TYPE, figures, licence(context))
    annotations = {
        **facts.annotations(),
        "org.opencontainers.image.title": f"{run.name}-{run.variant}",
        "slmops.dev/precision": run.precision,
    }
    packed = layers(built, run.name, run.compression)
    image = registry.push_image(run.output, packed, annotations, architecture=run.architecture)
    describe(registry, run.output, context, image, facts)
    return Report(outcome="Succeeded", artifacts={"image": image}, evaluation=figures)


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
