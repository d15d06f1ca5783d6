"""A converted model is measured as its original is: PyTorch and ONNX Runtime say the same of the same weights."""

import math
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime_genai")
pytest.importorskip("torchmetrics")

import torch
from transformers import AutoTokenizer

from slm_quantizer import evaluate as ours
from slm_quantizer.convert import convert
from slm_quantizer.pack import finish
from slm_trainer import evaluate as theirs
from slm_trainer.encoding import encode
from slm_trainer.model import load_model, new_model, save, train_tokenizer
from slmkit.data import Example
from slmkit.run import Context
from slmops.contract import Architecture, Evaluation, Metric, QuantizeRun, Sink, Source

EXAMPLES = [Example(({"role": "user", "content": f"code {n}"},), f"open gate {n % 3}") for n in range(12)]


def test_both_engines_measure_the_same_of_the_same_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    tokenizer = train_tokenizer(EXAMPLES, 300)
    wanted = Architecture(hidden_size=64, layers=2, attention_heads=2, key_value_heads=1, intermediate_size=96,
                          vocabulary_size=300)  # fmt: skip
    save(new_model(wanted, tokenizer), tokenizer, tmp_path / "model")
    run = QuantizeRun(run="x", model=Source(uri="oci://registry.example/x:v1"), name="x", variant="full", precision="FP32",
                      output=Sink(repository="registry.example/y"))  # fmt: skip
    built = convert(tmp_path / "model", run, tmp_path)
    finish(built, run)
    evaluation = Evaluation(metrics=tuple(Metric), max_new_tokens=6)
    context = Context(tmp_path)
    context.stage("Evaluating")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    converted = ours.measure(built, ours.texts(loaded, EXAMPLES), EXAMPLES, evaluation, context)
    original = theirs.measure(tmp_path / "model", EXAMPLES, evaluation, context)
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
    torch.manual_seed(1)
    tokenizer = train_tokenizer(EXAMPLES, 300)
    wanted = Architecture(hidden_size=64, layers=1, attention_heads=2, key_value_heads=1, intermediate_size=96,
                          vocabulary_size=300, max_position_embeddings=64)  # fmt: skip
    save(new_model(wanted, tokenizer), tokenizer, tmp_path / "model")
    run = QuantizeRun(run="x", model=Source(uri="oci://registry.example/x:v1"), name="x", variant="full", precision="FP32",
                      output=Sink(repository="registry.example/y"))  # fmt: skip
    built = convert(tmp_path / "model", run, tmp_path)
    finish(built, run)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)

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
    found = ours.measure(built, ours.texts(loaded, records), records, evaluation, context).figures
    nats, tokens = theirs.losses(load_model(tmp_path / "model").eval(), loaded, records)
    assert [bool(count) for count in tokens[:3]] == [True, False, False]
    assert found.perplexity == pytest.approx(math.exp(sum(nats) / sum(tokens)), rel=2e-3)
    assert found.samples == 15
