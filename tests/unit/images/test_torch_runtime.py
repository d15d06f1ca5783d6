"""A converted model is measured as its original is: PyTorch and ONNX Runtime say the same of the same weights."""

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime_genai")
pytest.importorskip("torchmetrics")

from transformers import AutoTokenizer

from slm_quantizer import evaluate as ours
from slm_quantizer.onnx import build
from slm_quantizer.pack import ends, finish, name_end
from slm_trainer import evaluate as theirs
from slm_trainer.encoding import encode, texts, turn_end
from slm_trainer.model import load_model, load_tokenizer, save
from slmkit.data import Example
from slmkit.run import Context
from slmops.contract import Evaluation, Metric, QuantizeRun, Sink, Source
from tests.unit.images.toys import EXAMPLES, saved


def built(model: Path, work: Path) -> tuple[Path, Any]:
    """(the model as the runtime reads it, its tokenizer)."""
    run = QuantizeRun(run="x", model=Source(uri="oci://registry.example/x:v1"), name="x", variant="full", precision="FP32",
                      output=Sink(repository="registry.example/y"))  # fmt: skip
    converted = build(model, run, None, work)
    finish(converted, run)
    return converted, AutoTokenizer.from_pretrained(model, local_files_only=True)


def test_both_engines_measure_the_same_of_the_same_weights(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    runtime, loaded = built(model, tmp_path)
    evaluation = Evaluation(metrics=tuple(Metric), max_new_tokens=6)
    context = Context(tmp_path)
    context.stage("Evaluating")
    converted = ours.measure(runtime, [texts(loaded, e) for e in EXAMPLES], EXAMPLES, evaluation, context)
    original = theirs.measure(model, EXAMPLES, evaluation, context)
    assert converted.right == original.right
    assert converted.figures.perplexity == pytest.approx(original.figures.perplexity, rel=2e-3)
    for name in ("exact_match", "accuracy", "f1", "bleu", "rouge"):
        assert getattr(converted.figures, name) == pytest.approx(getattr(original.figures, name), abs=0.02), name
    assert converted.figures.intervals.keys() == set(map(str, Metric)) - {"PeakMemory"}
    first, whole = converted.figures.first_token_seconds, converted.figures.inference_seconds
    assert first is not None
    assert whole is not None
    assert 0 < first < whole < 10
    assert (context.progress.step, context.progress.of) == (24, 24)


def test_records_as_long_as_the_model_can_read_are_measured_and_longer_ones_end_nothing(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", layers=1, max_position_embeddings=64)
    runtime, loaded = built(model, tmp_path)

    def of(length: int) -> Example:
        """A record of so many tokens: each % is one, since it is in no text that the tokenizer was made from."""
        example = Example(({"role": "user", "content": "%"},), "open gate 1")
        (record,), _ = encode(loaded, [example], 1000)
        made = Example(({"role": "user", "content": "%" * (length - len(record.tokens) + 1)},), "open gate 1")
        assert len(encode(loaded, [made], 1000)[0][0].tokens) == length
        return made

    records = [of(64), of(65), of(200), *EXAMPLES]
    evaluation = Evaluation(metrics=(Metric.PERPLEXITY, Metric.INFERENCE_TIME), max_new_tokens=6)
    context = Context(tmp_path)
    context.stage("Evaluating")
    found = ours.measure(runtime, [texts(loaded, record) for record in records], records, evaluation, context).figures
    nats, tokens = theirs.losses(load_model(model).eval(), loaded, records)
    assert [bool(count) for count in tokens[:3]] == [True, False, False]
    assert found.perplexity == pytest.approx(math.exp(sum(nats) / sum(tokens)), rel=2e-3)
    assert found.samples == 15


@pytest.mark.parametrize("published", [True, False])
def test_the_runtime_stops_where_the_template_ends_an_answer(published: bool, tmp_path: Path) -> None:
    """A model that was published here names that token, and the converter reads it there; of another model it is looked
    for in the template."""
    folder = saved(tmp_path / "made", layers=1)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    tokenizer.add_tokens(["<|turn|>"])
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|turn|>")
    turn = tokenizer.convert_tokens_to_ids("<|turn|>")
    model.resize_token_embeddings(turn + 4)
    if published:
        save(model, tokenizer, tmp_path / "model")
    else:
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
    runtime, loaded = built(tmp_path / "model", tmp_path)
    assert ends(runtime) == ([tokenizer.eos_token_id, turn] if published else [tokenizer.eos_token_id])
    name_end(runtime, turn_end(loaded))
    assert ends(runtime) == [tokenizer.eos_token_id, turn]
    context = Context(tmp_path)
    context.stage("Evaluating")
    pairs = [texts(loaded, example) for example in EXAMPLES]
    found = ours.measure(runtime, pairs, EXAMPLES, Evaluation(metrics=(), max_new_tokens=6), context)
    assert found.figures.samples == 12, "and the runtime reads the list"


def test_a_template_that_begins_answers_in_another_way_costs_the_perplexity_alone(tmp_path: Path) -> None:
    runtime, loaded = built(saved(tmp_path / "model", layers=1), tmp_path)
    loaded.chat_template = loaded.chat_template.replace("<|assistant|>{% endif", "<|assistant|>think: {% endif")
    pairs = [texts(loaded, example) for example in EXAMPLES]
    assert [answer for _, answer in pairs] == [None] * 12
    context = Context(tmp_path)
    context.stage("Evaluating")
    found = ours.measure(runtime, pairs, EXAMPLES, Evaluation(metrics=tuple(Metric), max_new_tokens=6), context).figures
    assert found.perplexity is None
    assert found.inference_seconds is not None
    assert (found.samples, found.f1 is None) == (12, False)
