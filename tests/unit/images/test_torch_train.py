"""Whole training runs, from a base and data in a registry to what is published there."""

import json
import weakref
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from slm_trainer import train as module
from slm_trainer.model import load_tokenizer, train_tokenizer
from slm_trainer.objectives import Objective
from slm_trainer.train import seed_everything, train
from slmkit.data import Example
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmops.contract import Reason, Report, Source, TrainRun
from tests.unit.images.fakeregistry import FakeRegistry

pytestmark = pytest.mark.filterwarnings("ignore")
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}" \
           "{% if add_generation_prompt %}[assistant]{% endif %}"  # fmt: skip
LINES = [{"prompt": f"open gate {n}", "completion": f'{{"gate": {n % 7}}}', "rejected": "no"} for n in range(24)]


def base(registry: FakeRegistry, folder: Path, end: str = "") -> None:
    """A tiny model in the registry. ``end``: what its template ends an answer with, a token that no settings name."""
    examples = [Example(({"role": "user", "content": line["prompt"]},), line["completion"]) for line in LINES]
    tokenizer = train_tokenizer(examples, 300)
    if end:
        tokenizer.add_tokens(["<|turn|>"])
        tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", end)
    seed_everything(1)
    config = Qwen2Config(vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
                         eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    registry.artifact("slm/base", {path.name: path.read_bytes() for path in folder.iterdir()})


def give(registry: FakeRegistry, *lines: dict[str, str]) -> None:
    """Data in the registry."""
    registry.artifact("slm/data", {"train.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()})


def ran(registry: FakeRegistry, work: Path, **fields: Any) -> Report:
    work.mkdir()
    source = {"source": {"uri": f"oci://{registry.host}/slm/data:latest"}, "format": "PromptCompletion"}
    source |= fields.pop("data", {})
    training = {"max_steps": 4, "batch_size": 4, "learning_rate": 0.01, "evaluate_every": 2, "precision": "FP32"}
    wanted = {
        "run": "r", "registry": registry.settings, "output": {"repository": f"{registry.host}/slm/made"},
        "base": {"uri": f"oci://{registry.host}/slm/base:latest"}, "method": "LoRA", "lora": {"rank": 4},
        "train": source, "validation_split": 0.3, "hyperparameters": training | fields.pop("training", {}),
        "evaluation": {"samples": 2, "max_new_tokens": 2, "untrained_baseline": False},
    }  # fmt: skip
    return train(TrainRun.model_validate(wanted | fields), Context(work=work))


def pulled(registry: FakeRegistry, reference: str, folder: Path) -> Path:
    Registry(registry.settings).pull(Source(uri=f"oci://{reference}"), folder)
    return folder


def test_the_same_seed_publishes_the_same_artefacts_byte_for_byte(registry: FakeRegistry, tmp_path: Path) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    asked = {"method": "QLoRA", "template": TEMPLATE, "task": "Extraction", "training": {"packing": True}}
    first, again = (ran(registry, tmp_path / name, **asked) for name in ("first", "again"))
    assert first.artifacts.keys() == {"adapter", "logs", "model"}
    assert first.artifacts["adapter"].reference == again.artifacts["adapter"].reference
    assert first.artifacts["model"].reference == again.artifacts["model"].reference
    assert first.learning == again.learning
    assert first.learning is not None
    assert [point.step for point in first.learning.curve] == [2, 3], "packed records make fewer steps"
    model = pulled(registry, first.artifacts["model"].reference, tmp_path / "model")
    assert (model / "chat_template.jinja").read_text() == TEMPLATE
    logs = pulled(registry, first.artifacts["logs"].reference, tmp_path / "logs")
    assert [path.name.startswith("events.out.tfevents") for path in logs.iterdir()] == [True]


def test_an_adapter_of_another_engine_is_measured_merged_and_published(registry: FakeRegistry, tmp_path: Path) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    learned = ran(registry, tmp_path / "learned")
    adopted = ran(registry, tmp_path / "adopted", adapter={"uri": f"oci://{learned.artifacts['adapter'].reference}"},
                  training={"max_steps": 1000})  # fmt: skip
    assert adopted.learning is None
    assert adopted.artifacts.keys() == {"adapter", "model"}
    files = [pulled(registry, made.artifacts["model"].reference, tmp_path / f"model-{number}")
             for number, made in enumerate((learned, adopted))]  # fmt: skip
    weights = [(folder / "model.safetensors").read_bytes() for folder in files]
    assert weights[0] == weights[1]
    assert adopted.evaluation["model"].exact_match == learned.evaluation["model"].exact_match


def test_a_contrastive_run_learns_from_worse_answers_and_names_a_record_without_one(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    made = ran(registry, tmp_path / "made", method="Full", contrast={"margin": 3.0})
    assert made.artifacts.keys() == {"logs", "model"}
    assert made.learning is not None
    assert made.learning.steps == 4
    give(registry, *LINES, *({"prompt": f"close gate {n}", "completion": "{}"} for n in range(9)))
    with pytest.raises(RunFailed) as failed:
        ran(registry, tmp_path / "failed", contrast={})
    assert failed.value.reason is Reason.INVALID_DATA
    assert "a record to train on has no rejected" in failed.value.message
    assert "train.jsonl line " in failed.value.message


def test_texts_are_learned_and_measured_by_their_loss_alone(registry: FakeRegistry, tmp_path: Path) -> None:
    base(registry, tmp_path / "base")
    texts = ["open gate 1 and close it again " * 200, *(f"open gate {n}" for n in range(23))]
    give(registry, *({"text": text} for text in texts))
    made = ran(registry, tmp_path / "made", data={"format": "Text"},
               evaluation={"samples": 9, "metrics": ["ExactMatch", "Accuracy", "BLEU", "InferenceTime", "PeakMemory"]},
               training={"max_steps": 20})  # fmt: skip
    before, after = made.evaluation["baseline"], made.evaluation["model"]
    assert before.perplexity is not None
    assert after.perplexity is not None
    assert after.perplexity < before.perplexity
    assert after.samples == before.samples
    assert after.samples
    assert {(f.exact_match, f.accuracy, f.bleu, f.inference_seconds, f.peak_memory_bytes) for f in (before, after)} == {
        (None, None, None, None, None)
    }


def test_early_stopping_publishes_the_weights_of_the_best_step(registry: FakeRegistry, tmp_path: Path) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    early = {"max_steps": 40, "epochs": 40, "scheduler": "Constant", "warmup_ratio": 0.0,
             "early_stopping": {"patience": 1, "min_delta": 100}}  # fmt: skip
    stopped = ran(registry, tmp_path / "stopped", training=early)
    assert stopped.learning is not None
    assert (stopped.learning.steps, stopped.learning.best_step, stopped.learning.stopped_early) == (4, 2, True)
    short = ran(registry, tmp_path / "short", training=early | {"max_steps": 2, "early_stopping": None})
    weights = [
        (
            pulled(registry, made.artifacts["model"].reference, tmp_path / f"model-{number}") / "model.safetensors"
        ).read_bytes()
        for number, made in enumerate((stopped, short))
    ]
    assert weights[0] == weights[1], "what was learned after step 2 is gone"


def test_a_model_is_measured_when_the_memory_of_the_training_is_free_again(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    done: list[Any] = []
    measure, held = module.measure, []

    def objective_of(*_: Any) -> Objective:
        teacher = torch.nn.Linear(2, 2)  # what an objective holds, as that of Features does
        held.append(weakref.ref(teacher))
        return Objective(extra=teacher)

    monkeypatch.setattr(module, "objective_of", objective_of)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("free"))
    monkeypatch.setattr(module, "measure", lambda *given: done.append(held[0]() is not None) or measure(*given))
    ran(registry, tmp_path / "made", method="Full",
        evaluation={"samples": 2, "max_new_tokens": 2, "untrained_baseline": True})  # fmt: skip
    assert done == ["free", True, "free", False]


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        (
            {"task": "Summarization"},
            Reason.INVALID_DATA,
            "task Summarization: train.jsonl line 1: the summary is no shorter",
        ),
        ({"template": "{% for m in messages %}"}, Reason.INVALID_TEMPLATE, "data.template: line 1"),
        ({"training": {"max_sequence_length": 3}}, Reason.INVALID_DATA, "are longer than maxSequenceLength 3"),
        ({"lora": {"target_modules": ("nowhere",)}}, Reason.INVALID_CONFIGURATION, "lora.targetModules"),
    ],
)
def test_what_cannot_be_trained_is_named(
    fields: dict[str, Any], reason: Reason, words: str, registry: FakeRegistry, tmp_path: Path
) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    with pytest.raises(RunFailed) as failed:
        ran(registry, tmp_path / "work", **fields)
    assert failed.value.reason is reason
    assert words in failed.value.message


def test_one_of_several_adapters_is_published_as_a_layer_too_and_nothing_is_merged(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    first, again = (ran(registry, tmp_path / name, layer="gates", merge=False) for name in ("first", "again"))
    assert first.artifacts.keys() == {"adapter", "layer", "logs"}
    assert first.artifacts["layer"] == again.artifacts["layer"]
    assert first.artifacts["layer"].size > first.evaluation["model"].weight_bytes // 100


def test_the_bases_task_is_measured_before_the_training_and_after_it(registry: FakeRegistry, tmp_path: Path) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    chores = "".join(json.dumps({"prompt": f"feed {n}", "completion": "done"}) + "\n" for n in range(5)).encode()
    registry.artifact("slm/chores", {"train.jsonl": chores})
    source = {"source": {"uri": f"oci://{registry.host}/slm/chores:latest"}, "format": "PromptCompletion"}
    measured = {"samples": 3, "max_new_tokens": 2}
    made = ran(registry, tmp_path / "made", base_task=source, evaluation=measured)
    assert made.evaluation.keys() == {"model", "baseline", "baseTask", "baseTaskBefore"}
    assert made.evaluation["baseTask"].samples == made.evaluation["baseTaskBefore"].samples == 3
    registry.artifact("slm/chores", {"train.jsonl": b'{"prompt": "feed"}\n'})
    with pytest.raises(RunFailed) as failed:
        ran(registry, tmp_path / "failed", base_task=source, evaluation=measured)
    assert failed.value.reason is Reason.INVALID_DATA
    assert failed.value.message.startswith("baseTask: ")


def part(registry: FakeRegistry, name: str, *prompts: str) -> dict[str, Any]:
    """Records that are held out, in the registry."""
    lines = "".join(json.dumps({"prompt": prompt, "completion": '{"gate": 1}'}) + "\n" for prompt in prompts).encode()
    registry.artifact(f"slm/{name}", {"held.jsonl": lines})
    return {"source": {"uri": f"oci://{registry.host}/slm/{name}:latest"}, "format": "PromptCompletion"}


def test_the_training_is_followed_by_the_validation_and_the_figures_are_of_the_evaluations_own(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    held = part(registry, "held", *(f"shut gate {number}" for number in range(5)))
    judge = part(registry, "judge", "lock it", "bar it")
    measured = {"samples": 9, "max_new_tokens": 2, "untrained_baseline": False}
    alone = ran(registry, tmp_path / "alone", validation=held, evaluation=measured)
    both = ran(registry, tmp_path / "both", validation=held, evaluation=measured | {"data": judge})
    other = ran(registry, tmp_path / "other", evaluation=measured | {"data": judge})
    assert [made.evaluation["model"].samples for made in (alone, both, other)] == [5, 2, 2]
    curves = [[point.eval_loss for point in made.learning.curve] for made in (alone, both, other) if made.learning]
    assert curves[0] == curves[1] != curves[2]
    manifest = registry.manifest("slm/made", both.artifacts["model"].reference.partition("@")[2])
    assert "/slm/judge@" in manifest["annotations"]["slmops.dev/input.evaluation"]
    assert "/slm/held@" in manifest["annotations"]["slmops.dev/input.validation"]
    counts: list[int] = []
    measure = module.measure

    def counting(folder: Path, examples: list[Example], *others: Any) -> Any:
        counts.append(len(examples))
        return measure(folder, examples, *others)

    monkeypatch.setattr(module, "measure", counting)
    search = {"space": SPACE, "metric": "ExactMatch", "direction": "Maximize", "pruner": "None"}
    ran(registry, tmp_path / "trial", validation=held, evaluation=measured | {"data": judge},
        trial={"number": 0, "search": search})  # fmt: skip
    assert counts == [5], "a trial is compared by what the figures at the end are not of"


@pytest.mark.parametrize(("end", "endless"), [("<|turn|>", False), (" <|turn|>\n", False), ("\n###\n", True)])
def test_what_is_published_ends_its_answers_where_the_template_does(
    end: str, endless: bool, registry: FakeRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base(registry, tmp_path / "base", end)
    give(registry, *LINES)
    made = ran(registry, tmp_path / "made")
    model = pulled(registry, made.artifacts["model"].reference, tmp_path / "model")
    named = json.loads((model / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = load_tokenizer(model)
    turn = tokenizer.convert_tokens_to_ids("<|turn|>")
    assert named == (tokenizer.eos_token_id if endless else [tokenizer.eos_token_id, turn])
    assert made.learning is not None
    assert made.learning.endless is endless
    assert ("answers go on to their limit" in caplog.text) is endless


SPACE = [{"name": "learningRate", "log": {"min": 1e-4, "max": 0.1}}]
FIVE = [{"parameters": [0.01], "result": {"value": 0.0, "measured": [0.0, 0.0]}}] * 5


def test_a_trial_reports_its_value_and_publishes_nothing(registry: FakeRegistry, tmp_path: Path) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    before = dict(registry.manifests)
    whole = ran(registry, tmp_path / "whole", trial={"number": 0, "search": {"space": SPACE}},
                evaluation={"samples": 2, "max_new_tokens": 2})  # fmt: skip
    assert whole.trial is not None
    assert whole.trial.value is not None
    assert len(whole.trial.measured) == 2
    assert whole.trial.measured[-1] == pytest.approx(whole.trial.value, rel=1e-4)
    pruned = ran(registry, tmp_path / "pruned", trial={"number": 5, "search": {"space": SPACE, "tried": FIVE}})
    assert pruned.trial is not None
    assert (pruned.trial.pruned, pruned.trial.value, len(pruned.trial.measured)) == (True, None, 1)
    search = {"space": SPACE, "metric": "ExactMatch", "direction": "Maximize", "pruner": "None"}
    answered = ran(registry, tmp_path / "answered", trial={"number": 0, "search": search})
    assert answered.trial is not None
    assert answered.trial.value in (0.0, 0.5, 1.0), "of two records"
    for made in (whole, pruned, answered):
        assert (made.artifacts, made.evaluation, made.learning) == ({}, {}, None)
    assert registry.manifests == before


def test_the_training_after_a_search_publishes_a_page_on_it(registry: FakeRegistry, tmp_path: Path) -> None:
    base(registry, tmp_path / "base")
    give(registry, *LINES)
    made = ran(registry, tmp_path / "made", searched={"space": SPACE, "tried": FIVE})
    assert made.artifacts.keys() == {"adapter", "logs", "model", "search"}
    page = pulled(registry, made.artifacts["search"].reference, tmp_path / "page")
    assert {path.name for path in page.iterdir()} == {"search.html", "search.json"}
    assert len(json.loads((page / "search.json").read_text())["trials"]) == 5
