"""Olive as the engine, with Olive itself: the recipe is refused before it starts where it would not do what was asked for,
and what counts in the end is the adapter."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("olive")

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

from slm_quantizer import adapt as adapting
from slm_quantizer.adapt import FILES, layers, proven, records_of
from slm_quantizer.recipe import recipe, validate
from slm_quantizer.telling import Telling, told
from slm_trainer.store import Record, Writer
from slmkit.budget import Guard
from slmkit.run import Context, RunFailed
from slmops.contract import WORK_DIR, Budget, Data, ExampleFormat, Reason, Sink, Source, TrainRun

MODULES = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny model with a tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    set_seed(1)
    config = Qwen2Config(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    words = Tokenizer(models.WordLevel({str(n): n for n in range(96)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="1").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def run(method: str = "LoRA", **fields: Any) -> TrainRun:
    source = Source(uri="oci://registry.example/x:v1")
    return TrainRun.model_validate({
        "run": "x", "method": method, "engine": "Olive", "base": source, "lora": {"rank": 4, "alpha": 8},
        "train": Data(source=source, format=ExampleFormat.MESSAGES), "output": Sink(repository="registry.example/x"),
        "hyperparameters": {"learning_rate": 0.01, "precision": "FP32", "batch_size": 8} | fields.pop("training", {}),
        **fields,
    })  # fmt: skip


def workflow(plan: TrainRun, base: Path, tmp_path: Path) -> dict[str, Any]:
    """The recipe of a run over 64 records that count on."""
    with Writer(tmp_path / "tokens") as writer:
        writer.extend(Record([(n + i) % 90 + 1 for i in range(5 + n % 3)], 2) for n in range(64))
    adapting._register()
    return recipe(plan, base, tmp_path / "tokens", layers(plan, base), 12, tmp_path)


def learned(plan: TrainRun, base: Path, tmp_path: Path) -> tuple[Path, Telling]:
    made, telling = workflow(plan, base, tmp_path), Telling(Context())
    validate(made)
    set_seed(plan.hyperparameters.seed)
    with told(telling):
        return adapting._run(made, tmp_path), telling


@pytest.mark.parametrize("scheduler", ["Constant", "Linear", "Cosine", "WarmupStableDecay"])
@pytest.mark.parametrize("method", ["LoRA", "QLoRA"])
def test_olive_takes_the_recipe_of_every_choice(method: str, scheduler: str, base: Path, tmp_path: Path) -> None:
    for precision in ("FP32", "BF16", "FP16"):
        validate(workflow(run(method, training={"scheduler": scheduler, "precision": precision}), base, tmp_path))


@pytest.mark.parametrize("method", ["LoRA", "QLoRA"])
def test_olive_learns_an_adapter_that_fits_the_base(method: str, base: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    plan = run(method)
    made, telling = learned(plan, base, tmp_path)
    proven(made, plan)
    tensors = load_file(made / FILES[1])
    assert len(tensors) == 28, "seven layers of two blocks, two matrices each"
    assert all(value.any() for value in tensors.values())
    model = PeftModel.from_pretrained(Qwen2ForCausalLM.from_pretrained(base), made)
    assert model.peft_config["default"].r == 4
    assert telling.steps == 12
    curve = telling.curve()
    assert [point.step for point in curve] == list(range(1, 13))
    assert curve[-1].train_loss < curve[0].train_loss
    assert not (tmp_path / "olive-cache").exists()


def test_the_same_seed_gives_the_same_adapter(base: Path, tmp_path: Path) -> None:
    def made(name: str, seed: int) -> list[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        plan = run(training={"seed": seed})
        found, _ = learned(plan, base, folder)
        proven(found, plan)
        return [(found / name).read_bytes() for name in FILES]

    first = made("first", 1)
    assert made("again", 1) == first
    assert made("other", 2)[1] != first[1]


def test_whoever_is_told_to_stop_stops_after_the_step(base: Path, tmp_path: Path) -> None:
    context = Context()
    context.stopping.set()
    telling = Telling(context)
    made = workflow(run(), base, tmp_path)
    with told(telling):
        adapting._run(made, tmp_path)
    assert telling.steps == 1
    with pytest.raises(RunFailed, match="told to stop"):
        telling.check()


def test_a_run_that_its_budget_ends_says_so_also_through_olive(base: Path, tmp_path: Path) -> None:
    context = Context()
    context.guard = Guard(Budget(gpus=1, gpu_hours=1e-9))
    context.stage("Training", of=12)
    telling = Telling(context)
    made = workflow(run(), base, tmp_path)
    with told(telling):
        adapting._run(made, tmp_path)
    with pytest.raises(RunFailed, match="GPU hours are needed") as error:
        telling.check()
    assert error.value.reason == Reason.BUDGET_EXCEEDED
    assert telling.steps == 6, "the first report starts the clock, five more are measured"


def changed(way: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(made: dict[str, Any]) -> None:
        *path, last = way.split(".")
        part = made
        for key in path:
            part = part[key]
        part[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("passes.adapter.rank", 4), "LoRA does not know rank"),
        (changed("passes.adapter.training_args.lerning_rate", 1), "LoRA does not know lerning_rate"),
        (changed("passes.adapter.alpha", "much"), "Olive refuses the recipe: alpha"),
        (changed("passes.adapter.train_data_config.load_dataset_config.type", "nothing"), "Olive refuses the recipe"),
        (changed("input_model.type", "NoModel"), "Olive refuses the recipe"),
    ],
)
def test_what_olive_would_ignore_or_fail_at_later_is_refused_before_it_starts(
    change: Callable[[dict[str, Any]], None], words: str, base: Path, tmp_path: Path
) -> None:
    made = workflow(run(), base, tmp_path)
    validate(made)
    change(made)
    with pytest.raises(RunFailed) as failed:
        validate(made)
    assert failed.value.reason is Reason.INVALID_CONFIGURATION
    assert words in failed.value.message


def test_validating_leaves_the_recipe_as_it_is(base: Path, tmp_path: Path) -> None:
    made = workflow(run(), base, tmp_path)
    before = json.dumps(made)
    validate(made)
    assert json.dumps(made) == before


def test_all_linear_layers_are_found_without_weights(base: Path) -> None:
    (base / "model.safetensors").unlink()
    assert layers(run(), base) == MODULES
    assert layers(run(lora={"target_modules": ("q_proj",)}), base) == ["q_proj"]


def test_the_loss_is_that_of_the_answer_alone(tmp_path: Path) -> None:
    with Writer(tmp_path / "tokens") as writer:
        writer.extend([Record([5, 6, 7, 8], 2)])
    (record,) = records_of(str(tmp_path / "tokens"))
    assert record == {"input_ids": [5, 6, 7, 8], "attention_mask": [1, 1, 1, 1], "labels": [-100, -100, 7, 8]}


def adapter(folder: Path, value: float = 1.0, **config: Any) -> Path:
    """What Olive may leave."""
    folder.mkdir(exist_ok=True)
    save_file({"x.lora_A.weight": torch.ones(4, 8), "x.lora_B.weight": torch.full((8, 4), value)}, folder / FILES[1])
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 8.0, "target_modules": ["b", "a"]}
    (folder / FILES[0]).write_text(json.dumps(plain | {"base_model_name_or_path": f"{WORK_DIR}/base"} | config))
    return folder


@pytest.mark.parametrize(
    ("value", "config", "reason", "words"),
    [
        (0.0, {}, Reason.ADAPTER_UNUSABLE, "learned nothing"),
        (float("nan"), {}, Reason.TRAINING_DIVERGED, "x.lora_B.weight"),
        (float("inf"), {}, Reason.TRAINING_DIVERGED, "no number"),
        (1.0, {"r": 64}, Reason.ADAPTER_UNUSABLE, "of rank 64 and alpha 8.0, not 4 and 8"),
        (1.0, {"peft_type": "LOHA"}, Reason.ADAPTER_UNUSABLE, "Olive made an adapter"),
    ],
)
def test_an_adapter_that_is_none_is_refused(
    value: float, config: dict[str, Any], reason: Reason, words: str, tmp_path: Path
) -> None:
    with pytest.raises(RunFailed) as failed:
        proven(adapter(tmp_path / "adapter", value, **config), run())
    assert failed.value.reason is reason
    assert words in failed.value.message


@pytest.mark.parametrize("missing", FILES)
def test_a_run_that_left_no_adapter_has_failed_whatever_olive_says(missing: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter")
    (folder / missing).unlink()
    with pytest.raises(RunFailed) as failed:
        proven(folder, run())
    assert failed.value.reason is Reason.ADAPTER_UNUSABLE
    assert missing in failed.value.message


def test_a_good_adapter_is_published_without_the_places_of_the_pod(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter")
    proven(folder, run())
    config = json.loads((folder / FILES[0]).read_text())
    assert (config["target_modules"], config["base_model_name_or_path"]) == (["a", "b"], None)
