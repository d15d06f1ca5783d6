"""A saved model is measured in a process of its own: what it answers, how fast, and what the expected answers cost it."""

import math
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torchmetrics")

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)

from slm_trainer import evaluate
from slm_trainer.encoding import encode, ends, name_ends
from slm_trainer.evaluate import answers, losses, measure
from slm_trainer.model import load_model, load_tokenizer
from slmkit.data import Example
from slmkit.run import Context
from slmops.contract import Evaluation, Metric
from tests.unit.images.toys import EXAMPLES, saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that knows nothing."""
    return saved(tmp_path_factory.mktemp("model"))


def whole_loss(model: Any, tokenizer: Any, example: Example) -> tuple[float, int]:
    """The sum of the answer's losses from the logits of the whole record."""
    (record,), _ = encode(tokenizer, [example], 10_000)
    tokens = torch.tensor([list(record.tokens)])
    with torch.no_grad():
        logits = model(tokens).logits[0, record.start - 1 : -1]
    return float(F.cross_entropy(logits, tokens[0, record.start :], reduction="sum")), len(record.tokens) - record.start


def test_the_loss_is_that_of_the_answer_alone(folder: Path) -> None:
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    nats, tokens = losses(model, tokenizer, EXAMPLES)
    expected = [whole_loss(model, tokenizer, example) for example in EXAMPLES]
    assert tokens == [count for _, count in expected]
    assert nats == pytest.approx([lost for lost, _ in expected], rel=1e-4)


def test_a_record_that_the_model_cannot_read_has_no_loss(folder: Path) -> None:
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    long = Example(({"role": "user", "content": "code " * 2000},), "open gate 1")
    assert losses(model, tokenizer, [long])[1] == [0]


def test_a_plain_text_is_read_to_its_end_however_long_it_is(folder: Path) -> None:
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, __, named: seen.append(named["input_ids"].shape[1]), with_kwargs=True)
    text = Example((), "open gate 1 " * 500)
    whole = len(tokenizer(text.completion, add_special_tokens=False)["input_ids"]) + 1
    nats, tokens = losses(model, tokenizer, [text])
    assert (sum(seen), max(seen)) == (whole, evaluate.PIECE)
    assert tokens == [whole - len(seen)], "nothing predicts the first token of a piece"
    assert math.isfinite(nats[0])


def test_an_answer_ends_at_whatever_token_the_models_settings_name(folder: Path) -> None:
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    asked: list[Any] = []
    model.generate = lambda **options: asked.append(options["eos_token_id"]) or options["input_ids"]
    for named in (None, 7, [tokenizer.eos_token_id, 7, 9]):
        model.generation_config.eos_token_id = named
        answers(model, tokenizer, EXAMPLES[:2], 3)
    assert [sorted(found) for found in asked] == [[1], [1, 7], [1, 7, 9]]


def test_the_end_is_no_part_of_an_answer_and_nothing_behind_it_is(folder: Path) -> None:
    """Also where it is a token that would be read back as text."""
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    tokenizer.add_tokens(["<|turn|>"])
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|turn|>")
    name_ends(model, tokenizer)
    (turn,) = tokenizer.convert_tokens_to_ids(["<|turn|>"])
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, turn]
    said = [
        tokenizer("open gate")["input_ids"],
        [*tokenizer("open")["input_ids"], turn, *tokenizer("never")["input_ids"]],
    ]
    padded = torch.tensor([row + [tokenizer.eos_token_id] * (12 - len(row)) for row in said])
    model.generate = lambda **options: torch.cat([options["input_ids"], padded], dim=1)
    assert answers(model, tokenizer, EXAMPLES[:2], 12) == ["open gate", "open"]


def test_a_strangers_model_stops_where_its_template_ends_an_answer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody named that token in its settings."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    tokenizer.add_tokens(["<|turn|>"])
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|turn|>")
    model.save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    seen: list[Any] = []

    def capture(model: Any, tokenizer: Any, examples: list[Example], limit: int) -> list[str]:
        seen.append(sorted(ends(model, tokenizer)))
        return ["x"] * len(examples)

    monkeypatch.setattr(evaluate, "answers", capture)
    prompt = [{"role": "user", "content": "a"}]
    asked = {"folder": str(tmp_path / "chat"), "limit": 3, "metrics": [], "examples": [[prompt, "b"]]}
    evaluate.look(asked)
    assert seen == [[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|turn|>")]]


def test_a_model_is_measured_as_a_whole(folder: Path, tmp_path: Path) -> None:
    ballast = torch.ones(300 * 2**18)  # 300 MiB that are ours
    context = Context(tmp_path)
    context.stage("Evaluating")
    found = measure(folder, EXAMPLES, Evaluation(metrics=tuple(Metric), max_new_tokens=6), context)
    del ballast
    figures = found.figures
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    expected = [whole_loss(model, tokenizer, example) for example in EXAMPLES]
    mean = sum(lost for lost, _ in expected) / sum(count for _, count in expected)
    assert figures.perplexity == pytest.approx(math.exp(mean), rel=1e-3)
    assert (figures.samples, context.progress.step, context.progress.of) == (12, 12, 12)
    assert figures.parameters == sum(p.numel() for p in model.parameters())
    assert figures.weight_bytes == (folder / "model.safetensors").stat().st_size
    assert figures.first_token_seconds is not None
    assert figures.inference_seconds is not None
    assert 0 < figures.first_token_seconds < figures.inference_seconds < 10
    assert figures.peak_memory_bytes is not None
    assert 50 * 2**20 < figures.peak_memory_bytes < 2**30
    assert figures.intervals.keys() == set(map(str, Metric)) - {"PeakMemory"}
    assert len(found.right) == 12


def test_times_are_those_of_single_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def slow(model: Any, tokenizer: Any, example: Example, limit: int) -> str:
        asked.append(limit)
        time.sleep(0.01 * limit)
        return ""

    monkeypatch.setattr(evaluate, "answer", slow)
    found = evaluate.times(None, None, EXAMPLES * 4, 3)
    assert asked == [3] * 30
    assert all(0.03 <= seconds < 1 for seconds in found)


def talkative(folder: Path) -> tuple[Any, Any]:
    """A model that says whatever comes into its head, and its tokenizer."""
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    head = model.get_output_embeddings().weight
    head.data = torch.randn(head.shape, generator=torch.Generator().manual_seed(3))
    head.data[tokenizer.all_special_ids] = 0
    return model, tokenizer


@pytest.mark.parametrize("limit", [1, 2, 24])
def test_what_is_timed_is_the_answer_that_is_judged(folder: Path, limit: int) -> None:
    model, tokenizer = talkative(folder)
    said = [evaluate.answer(model, tokenizer, example, limit) for example in EXAMPLES]
    assert said == answers(model, tokenizer, EXAMPLES, limit)
    assert any(said)


def test_what_is_timed_ends_at_whatever_token_the_models_settings_name(folder: Path) -> None:
    model, tokenizer = talkative(folder)
    text = tokenizer.apply_chat_template(list(EXAMPLES[0].prompt), tokenize=False, add_generation_prompt=True)
    read = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    first = int(model(read).logits[0, -1].argmax())
    assert evaluate.answer(model, tokenizer, EXAMPLES[0], 24)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, first]
    assert evaluate.answer(model, tokenizer, EXAMPLES[0], 24) == ""
    assert answers(model, tokenizer, EXAMPLES[:1], 24) == [""]
