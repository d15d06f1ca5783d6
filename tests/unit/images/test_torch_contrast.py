"""Better and worse answers: the loss against its formula, pairs that stay together, and a model that learns to prefer."""

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from slm_trainer.feed import Feed
from slm_trainer.loop import fit
from slm_trainer.losses import IGNORED, answer_loss, contrastive_loss, log_likelihood
from slm_trainer.model import train_tokenizer
from slm_trainer.objectives.contrast import by_contrast
from slm_trainer.pairs import Pairs, encode_pairs
from slm_trainer.store import Record, digest
from slm_trainer.tokens import collate
from slm_trainer.train import seed_everything
from slmkit.data import Example
from slmkit.run import Context, RunFailed
from slmops.contract import Contrast, Hyperparameters, Reason
from tests.unit.images.test_torch_loop import Toy, wanted
from tests.unit.images.toys import pairs


def batch(rows: int = 4, length: int = 6, words: int = 9) -> tuple["torch.Tensor", "torch.Tensor"]:
    draw = torch.Generator().manual_seed(5)
    labels = torch.randint(0, words, (rows, length), generator=draw)
    for row in range(rows):
        labels[row, : 2 + row % 2] = IGNORED
    return torch.randn(rows, length, words, generator=draw, dtype=torch.float64), labels


def likelihood(logits: Any, labels: Any) -> float:
    """By the definition, token by token."""
    total = 0.0
    for place in range(1, len(labels)):
        if labels[place] != IGNORED:
            chances = [math.exp(float(value)) for value in logits[place - 1]]
            total += math.log(chances[int(labels[place])] / sum(chances))
    return total


def test_the_log_likelihood_is_the_sum_over_the_answers_tokens() -> None:
    logits, labels = batch()
    expected = [likelihood(*row) for row in zip(logits, labels, strict=True)]
    assert log_likelihood(logits, labels).tolist() == pytest.approx(expected, rel=1e-5)
    tokens = int((labels[:, 1:] != IGNORED).sum())
    assert float(answer_loss(logits, labels)) == pytest.approx(-sum(expected) / tokens, rel=1e-5)


@pytest.mark.parametrize("margin", [0.0, 1.0, 50.0])
def test_the_loss_is_that_of_the_paper(margin: float) -> None:
    logits, labels = batch()
    found = [likelihood(*row) for row in zip(logits, labels, strict=True)]
    pairs = list(zip(found[:2], found[2:], strict=True))
    expected = sum(max(0.0, margin - better + worse) - better for better, worse in pairs) / 2
    assert float(contrastive_loss(logits, labels, margin=margin)) == pytest.approx(expected, rel=1e-5)


def test_beyond_the_margin_the_worse_answer_does_not_matter_any_more() -> None:
    logits, labels = batch(2)
    logits[0, torch.arange(5), labels[0, 1:].clamp_min(0)] += 40
    logits.requires_grad_()
    contrastive_loss(logits, labels, margin=1.0).backward()
    assert logits.grad is not None
    assert not logits.grad[1].any()
    near = logits.detach().clone().requires_grad_()
    contrastive_loss(near, labels, margin=1000.0).backward()
    assert near.grad is not None
    assert near.grad[1].any()


def test_both_answers_of_a_pair_share_a_batch() -> None:
    feed = Feed(pairs(13), Hyperparameters(batch_size=4, gradient_accumulation=2), 0)
    made = list(feed.epoch(0))
    assert feed.per_epoch == len(made) == 2
    assert sorted(b.answered for group in made for b in group) == [1, 4, 4, 4]
    for one in (b for group in made for b in group):
        better, worse = one.tokens.chunk(2)
        assert torch.equal(better[:, :2], worse[:, :2]), "the same prompts in the same order"
        assert torch.equal(better[:, 2], worse[:, 2] + 2)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_no_part_of_a_batch_tears_a_pair_apart(size: int) -> None:
    (whole,) = next(Feed(pairs(5), Hyperparameters(batch_size=5), 0).epoch(0))
    parts = [whole.part(number, size) for number in range(size)]
    assert sum(part.answered for part in parts) == whole.answered == 5
    found = []
    for number, part in enumerate(parts):
        better, worse = part.tokens.chunk(2)
        assert torch.equal(better[:, :2], worse[:, :2])
        assert torch.equal(better[:, 2], worse[:, 2] + 2)
        if number < 5:
            assert part.answered == len(better)
            found += better[:, 0].tolist()
        else:
            assert (part.answered, len(part.tokens)) == (0, 2)
            assert (part.labels == IGNORED).all()
        moved = part.to(torch.device("cpu"))
        assert (moved.paired, moved.answered) == (True, part.answered)
    assert sorted(found) == sorted(whole.tokens[:5, 0].tolist())


def test_a_model_learns_to_prefer_the_better_answer() -> None:
    seed_everything(2)
    model, lessons = Toy(), pairs(18)
    fit(model, lessons, wanted(max_steps=80, learning_rate=0.02), 0, by_contrast(Contrast(margin=5.0)), Context())
    found = []
    for rows in (list(lessons), list(lessons.worse)):
        tokens, mask, labels = collate(rows, 0)
        with torch.inference_mode():
            found.append(log_likelihood(model(tokens, mask).logits, labels))
    better, worse = found
    assert bool((better - worse > 4).all()), "nearly the margin"
    assert float(better.exp().mean()) > 0.8


def test_halves_of_a_batch_of_pairs_are_a_batch() -> None:
    def after(**fields: Any) -> "torch.Tensor":
        seed_everything(1)
        model = Toy()
        fit(model, pairs(6), wanted(max_steps=3, weight_decay=0.0, **fields), 0, by_contrast(Contrast()), Context())
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.allclose(after(batch_size=6), after(batch_size=4, gradient_accumulation=2), atol=1e-5)


def asked(completion: str, rejected: str | None) -> Example:
    return Example(({"role": "user", "content": "what"},), completion, None, rejected)


def test_pairs_are_encoded_with_the_same_prompt_and_dropped_together(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([asked("good", None), asked("bad", None)], 300)
    examples = [asked("good", "bad"), asked("good", "very long " * 30), asked("fine", "poor")]
    made, dropped = encode_pairs(tokenizer, examples, 40, tmp_path)
    assert (len(made), len(made.worse), dropped) == (2, 2, 1)
    for better, worse in zip(made, made.worse, strict=True):
        assert better.tokens[: better.start] == worse.tokens[: worse.start]
    assert tokenizer.decode(made.worse[1].tokens[made.worse[1].start :]).startswith("poor")


def test_a_record_without_a_worse_answer_is_named(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([asked("good", None)], 300)
    with pytest.raises(RunFailed) as failed:
        encode_pairs(tokenizer, [asked("good", "bad"), asked("good", None)], 40, tmp_path)
    assert failed.value.reason is Reason.INVALID_DATA
    assert "record 2" in failed.value.message


def test_a_digest_of_pairs_is_of_both_answers_each_in_its_place() -> None:
    one, two, three = Record([1, 2], 1), Record([1, 3], 1), Record([1, 4], 1)
    all_of_them = [Pairs([one], [two]), Pairs([two], [one]), Pairs([one], [three]), Pairs([three], [two]),
                   Pairs([one, two], [three, three]), Pairs([one, three], [two, three]), [one], [one, two]]  # fmt: skip
    assert len({digest(records) for records in all_of_them}) == len(all_of_them)
