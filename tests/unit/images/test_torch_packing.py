"""Several records in a row: few rows, the same losses and gradients as one by one, and a model that mixes them is found
out."""

import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from slm_trainer.batch import Batch
from slm_trainer.feed import Feed
from slm_trainer.losses import IGNORED, answer_loss
from slm_trainer.packing import collate, prove, rows
from slm_trainer.tokens import Record
from slm_trainer.tokens import collate as one_by_one
from slm_trainer.train import seed_everything
from slmkit.run import RunFailed
from slmops.contract import Hyperparameters, Reason

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "vocab_size": 50}  # fmt: skip
MODELS = {
    "qwen2": lambda how: Qwen2ForCausalLM(Qwen2Config(**SIZES, attn_implementation=how)),
    "llama": lambda how: LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation=how)),
    "gpt2": lambda how: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=64,
                                                   attn_implementation=how)),
}  # fmt: skip


def some(*lengths: int) -> list[Record]:
    draw = torch.Generator().manual_seed(3)
    return [Record(torch.randint(1, 50, (n,), generator=draw).tolist(), max(1, n // 2)) for n in lengths]


def model_of(kind: str, how: str = "eager") -> Any:
    seed_everything(1)
    return MODELS[kind](how).eval()


def gradients(model: Any, batch: Batch) -> tuple[float, "torch.Tensor"]:
    model.zero_grad()
    loss = answer_loss(model(**batch.inputs()).logits, batch.labels)
    loss.backward()
    return float(loss), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("how", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", MODELS)
def test_packed_records_have_the_loss_and_the_gradients_that_they_have_one_by_one(kind: str, how: str) -> None:
    model, made = model_of(kind, how), some(7, 12, 5, 9)
    apart = Batch.of(*one_by_one(made, 0))
    together = collate([made[:3], made[3:]], 0)
    assert together.answered == apart.answered
    (loss, gradient), (packed_loss, packed_gradient) = gradients(model, apart), gradients(model, together)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(packed_gradient, gradient, atol=1e-6)


@pytest.mark.parametrize("how", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", MODELS)
def test_padding_needs_no_mask(kind: str, how: str) -> None:
    model, batch = model_of(kind, how), Batch.of(*one_by_one(some(7, 12, 5, 9), 0))
    assert not batch.mask.all()
    loss, gradient = gradients(model, batch)
    model.zero_grad()
    masked = answer_loss(model(**batch.inputs(), attention_mask=batch.mask).logits, batch.labels)
    masked.backward()
    assert loss == pytest.approx(float(masked), rel=1e-6)
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert torch.allclose(gradient, found, atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_a_record_does_not_change_when_its_neighbours_do(kind: str) -> None:
    model, (first, second, other) = model_of(kind), some(6, 8, 6)
    with torch.inference_mode():
        beside = model(**collate([[first, second]], 0).inputs()).logits[0, 6:]
        beside_another = model(**collate([[other, second]], 0).inputs()).logits[0, 6:]
    assert torch.equal(beside, beside_another)


@pytest.mark.parametrize("kind", MODELS)
def test_models_that_keep_records_apart_pass(kind: str) -> None:
    model = model_of(kind).train()
    prove(model, some(6, 8, 20), 0)
    assert model.training


def test_a_model_that_lets_records_see_each_other_is_refused() -> None:
    class Mixing(torch.nn.Module):
        """Takes places for what they are not needed for: its attention goes on over the border."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model_of("qwen2")

        def forward(self, input_ids: Any, position_ids: Any, use_cache: bool) -> Any:
            return self.inner(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), position_ids=position_ids,
                              use_cache=use_cache)  # fmt: skip

    with pytest.raises(RunFailed) as failed:
        prove(Mixing(), some(6, 8), 0)
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL
    assert "leave packing out" in failed.value.message


def plainly(lengths: list[int], longest: int) -> list[list[int]]:
    """The same rows by lists: each record, the longest first, into the fullest row that holds it, of equals the last."""
    made: list[list[int]] = []
    filled: list[int] = []
    """Rows, the one that was filled last at the end."""
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = {row: longest - sum(lengths[i] for i in made[row]) for row in filled}
        fits = [row for row in filled if room[row] >= lengths[index]]
        row = min(reversed(fits), key=room.__getitem__) if fits else len(made)
        if not fits:
            made.append([])
        made[row].append(index)
        filled = [other for other in filled if other != row] + [row]
    return made


def test_rows_take_no_more_memory_than_is_said() -> None:
    lengths = np.random.default_rng(1).integers(1, 200, 200_000).astype(np.uint32)
    tracemalloc.start()
    try:
        made = rows(lengths, 256)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(made) < 100_000
    assert kept <= 8 * len(lengths) + 10_000
    assert peak <= 32 * len(lengths)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_every_record_is_in_one_row_and_no_row_is_too_long(lengths: list[int]) -> None:
    made = rows(np.array(lengths, np.uint32), 30)
    assert [*made] == plainly(lengths, 30)
    assert sorted(i for row in made for i in row) == list(range(len(lengths)))
    sizes = [sum(lengths[i] for i in row) for row in made]
    assert max(sizes) <= 30
    assert len(made) <= 2 * -(-sum(lengths) // 30), "no two rows fit into one"


def test_the_first_token_of_a_record_is_never_a_label() -> None:
    batch = collate([[Record([1, 2, 3], 0), Record([4, 5], 0)]], 0)
    assert batch.labels.tolist() == [[IGNORED, 2, 3, IGNORED, 5]]
    assert batch.positions is not None
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1]]


def test_what_is_left_of_a_row_is_nobodys() -> None:
    batch = collate([some(4), some(7)], 0)
    assert batch.positions is not None
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.mask[0].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert batch.labels[0, 4:].tolist() == [IGNORED] * 3


def test_a_packed_epoch_has_every_record_once_in_fewer_passes() -> None:
    made = some(*range(3, 23))
    plan = Hyperparameters(batch_size=2, max_sequence_length=32, packing=True)
    feed = Feed(made, plan, 0)
    assert feed.per_epoch == 4, "250 tokens fit into 8 rows of 32"
    seen = []
    for group in feed.epoch(0):
        for batch in group:
            assert isinstance(batch.positions, torch.Tensor)
            for row, mask, place in zip(batch.tokens, batch.mask, batch.positions, strict=True):
                starts = [i for i in range(len(row)) if place[i] == 0 and mask[i]] + [int(mask.sum())]
                seen += [row[a:b].tolist() for a, b in pairwise(starts)]
    assert sorted(seen) == sorted(record.tokens for record in made)
    first, again, other = ([b.tokens.tolist() for g in feed.epoch(n) for b in g] for n in (0, 0, 1))
    assert first == again != other
