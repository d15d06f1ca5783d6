"""The training loop on a toy model: it learns, it repeats itself, it stops when told, and it notices when it goes wrong."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from slm_trainer import loop
from slm_trainer.loop import fit
from slm_trainer.objectives import Objective
from slm_trainer.objectives.base import by_labels
from slm_trainer.precision import settled
from slm_trainer.tokens import Record
from slm_trainer.train import seed_everything
from slmkit.run import Context, RunFailed
from slmops.contract import Architecture, Hyperparameters, Reason

WORDS = 12
torch.set_num_threads(1)  # threads beyond the cores that are free only get in each other's way


class Toy(torch.nn.Module):
    """The next word from the last two."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(WORDS, 16)
        self.mix = torch.nn.Linear(32, 16)
        self.out = torch.nn.Linear(16, WORDS)

    def forward(self, input_ids: Any, use_cache: bool = True) -> Any:
        now = self.embed(input_ids)
        before = torch.cat([torch.zeros_like(now[:, :1]), now[:, :-1]], dim=1)
        return SimpleNamespace(logits=self.out(torch.relu(self.mix(torch.cat([now, before], dim=-1)))))


def records(count: int = 64) -> list[Record]:
    """Count on from a number: the answer of 3 4 is 5 6 7."""
    return [Record([(n + i) % 10 + 1 for i in range(5)], 2) for n in range(count)]


def wanted(**fields: Any) -> Hyperparameters:
    plain = {"max_steps": 50, "epochs": 100, "batch_size": 8, "learning_rate": 0.02, "precision": "FP32"}
    return Hyperparameters.model_validate(plain | fields)


def trained(context: Context | None = None, seed: int = 42, **fields: Any) -> tuple[Toy, list[float]]:
    """A model after training, and the loss of every batch."""
    seed_everything(seed)
    model, losses = Toy(), []

    def noted(*batch: Any) -> Any:
        loss = by_labels(*batch)
        losses.append(float(loss.detach()))
        return loss

    fit(model, records(), wanted(seed=seed, **fields), 0, Objective(noted), context or Context())
    return model, losses


def weights(model: torch.nn.Module) -> "torch.Tensor":
    return torch.cat([p.detach().cpu().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", "BF16"),
        ("flags : fpu amx_bf16 amx_tile\n", "BF16"),
        ("Features\t: fp asimd bf16\n", "BF16"),
        ("flags\t\t: fpu avx2 avx512f\nprocessor: 1\n", "FP32"),
        ("", "FP32"),
        (None, "FP32"),
    ],
)
def test_auto_is_what_the_processor_computes_in(text: str | None, chosen: str, tmp_path: Path) -> None:
    about = tmp_path / "cpuinfo"
    if text is not None:
        about.write_text(text)
    assert settled("Auto", torch.device("cpu"), about) == chosen
    assert settled("FP16", torch.device("cpu"), about) == "FP16"


@pytest.mark.parametrize("precision", ["Auto", "FP32", "BF16", "FP16"])
def test_fifty_steps_teach_a_toy(precision: str) -> None:
    model, losses = trained(precision=precision)
    assert losses[0] > 0.8 * math.log(WORDS), "it begins with knowing nothing"
    assert sum(losses[-5:]) / 5 < 0.1
    assert weights(model).dtype == torch.float32
    assert not model.training


def test_the_same_seed_gives_the_same_weights() -> None:
    first, _ = trained()
    again, _ = trained()
    assert torch.equal(weights(first), weights(again))
    other, _ = trained(seed=43)
    assert not torch.allclose(weights(first), weights(other))


def test_two_halves_of_a_batch_are_a_batch() -> None:
    def after(**fields: Any) -> "torch.Tensor":
        seed_everything(1)
        model = Toy()
        fit(model, records(8), wanted(max_steps=5, weight_decay=0.0, **fields), 0, Objective(by_labels), Context())
        return weights(model)

    whole, halves = after(batch_size=8), after(batch_size=4, gradient_accumulation=2)
    assert torch.allclose(whole, halves, atol=1e-5)
    assert not torch.allclose(whole, after(batch_size=4), atol=1e-5)


def test_gradients_are_cut_to_their_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: Any, *args: Any) -> Any:
        grads = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        sizes.append(float(torch.cat(grads).norm()))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    trained(max_steps=3, max_gradient_norm=0.01)
    assert sizes == pytest.approx([0.01] * 3, rel=1e-3)


def test_a_step_has_the_gradients_of_its_own_batch_alone() -> None:
    model = Toy()

    def fresh(*batch: Any) -> Any:
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())
        return by_labels(*batch)

    fit(model, records(), wanted(max_steps=3), 0, Objective(fresh), Context())


def test_each_epoch_has_an_order_of_its_own() -> None:
    orders: list[int] = []

    def noted(output: Any, tokens: Any, mask: Any, labels: Any) -> Any:
        orders.extend(tokens[:, 0].tolist())
        return by_labels(output, tokens, mask, labels)

    fit(Toy(), records(16), wanted(max_steps=6, batch_size=8), 0, Objective(noted), Context())
    first, second, third = (orders[i : i + 16] for i in (0, 16, 32))
    assert first != second != third != first
    assert sorted(first) == sorted(second) == sorted(third)


def test_frozen_weights_stay_as_they_are() -> None:
    seed_everything(1)
    model = Toy()
    model.embed.requires_grad_(False)
    frozen, free = model.embed.weight.clone(), model.out.weight.clone()
    fit(model, records(), wanted(max_steps=5), 0, Objective(by_labels), Context())
    assert torch.equal(model.embed.weight, frozen)
    assert not torch.equal(model.out.weight, free)


def test_weights_of_the_objective_learn_beside_the_model() -> None:
    seed_everything(1)
    model, beside = Toy(), torch.nn.Linear(WORDS, WORDS)
    before = beside.weight.clone()

    def through(output: Any, tokens: Any, mask: Any, labels: Any) -> Any:
        return by_labels(SimpleNamespace(logits=beside(output.logits)), tokens, mask, labels)

    fit(model, records(), wanted(max_steps=5), 0, Objective(through, extra=beside), Context())
    assert not torch.equal(beside.weight, before)
    assert len(list(model.parameters())) == len(list(Toy().parameters())), "and are no part of it"


def test_progress_shows_where_the_training_is() -> None:
    context = Context()
    trained(context)
    found = context.progress
    assert (found.stage, found.step, found.of) == ("Training", 50, 50)
    assert found.loss is not None
    assert 0 < found.loss < math.log(WORDS)
    assert found.tokens_per_second is not None
    assert found.tokens_per_second > 0


def test_whoever_is_told_to_stop_stops_within_a_few_steps() -> None:
    context, seen = Context(), []

    def stopping(*batch: Any) -> Any:
        seen.append(1)
        if len(seen) == 12:
            context.stopping.set()
        return by_labels(*batch)

    with pytest.raises(RunFailed) as failed:
        fit(Toy(), records(), wanted(), 0, Objective(stopping), context)
    assert failed.value.reason is Reason.TERMINATED
    assert 12 <= len(seen) <= 20


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_any_more_is_a_failure_that_names_the_step(bad: float) -> None:
    seen = []

    def broken(*batch: Any) -> Any:
        seen.append(1)
        return by_labels(*batch) * (bad if len(seen) == 7 else 1.0)

    with pytest.raises(RunFailed) as failed:
        fit(Toy(), records(), wanted(), 0, Objective(broken), Context())
    assert failed.value.reason is Reason.TRAINING_DIVERGED
    assert "at step 7 of 50" in failed.value.message


def test_as_many_steps_as_planned_are_made() -> None:
    _, losses = trained(max_steps=None, epochs=2, batch_size=10, gradient_accumulation=2)
    assert len(losses) == 14, "two epochs of seven batches"


def test_a_vocabulary_like_another_size_of_the_model_is_refused() -> None:
    pytest.importorskip("transformers")
    from slm_trainer.model import new_model

    class Tokenizer:
        eos_token_id, pad_token_id = 1, 0

        def __len__(self) -> int:
            return 256

    sizes = {"layers": 1, "attention_heads": 2, "key_value_heads": 1, "vocabulary_size": 200}
    for same in ({"hidden_size": 256, "intermediate_size": 64}, {"hidden_size": 64, "intermediate_size": 256}):
        with pytest.raises(RunFailed) as failed:
            new_model(Architecture.model_validate(sizes | same), Tokenizer())
        assert failed.value.reason is Reason.INVALID_CONFIGURATION
    model = new_model(Architecture.model_validate(sizes | {"hidden_size": 64, "intermediate_size": 128}), Tokenizer())
    assert model.config.vocab_size == 256, "no token is without a row"


def test_a_step_whose_gradients_overflow_in_fp16_is_left_out_and_the_scale_is_halved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scalers, scales = [], []
    make = loop.grad_scaler

    def noted(*args: Any) -> Any:
        scalers.append(make(*args))
        return scalers[-1]

    monkeypatch.setattr(loop, "grad_scaler", noted)
    model, seen = Toy(), []
    before = weights(model).clone()

    def overflowing(*batch: Any) -> Any:
        seen.append(weights(model).clone())
        scales.append(scalers[0].get_scale())
        loss = by_labels(*batch)
        if len(seen) == 1:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    fit(model, records(), wanted(max_steps=3, precision="FP16"), 0, Objective(overflowing), Context())
    assert torch.equal(seen[1], before), "the first step changed nothing"
    assert not torch.equal(seen[2], before)
    assert scales[1] == scales[0] / 2
    assert weights(model).isfinite().all()


def test_halves_of_different_length_weigh_as_much_as_their_tokens() -> None:
    """The mean of the means of a long and a short answer is another than the mean over all tokens."""
    mixed = [*records(4), *(Record(record.tokens[:3], 2) for record in records(4))]

    def after(**fields: Any) -> "torch.Tensor":
        seed_everything(1)
        model = Toy()
        fit(model, mixed, wanted(max_steps=4, weight_decay=0.0, **fields), 0, Objective(), Context())
        return weights(model)

    assert torch.allclose(after(batch_size=8), after(batch_size=4, gradient_accumulation=2), atol=1e-5)


def test_what_is_left_over_of_an_epoch_is_trained_on_too() -> None:
    _, losses = trained(max_steps=None, epochs=2, batch_size=10, gradient_accumulation=4)
    assert len(losses) == 14, "two epochs of seven batches, in groups of four and three"
