"""Held-out records while a model trains: early stopping keeps the best weights, learning by heart is noticed, curves are
written."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorboardX")

import torch

from slm_trainer.curves import NAMES, Curves
from slm_trainer.loop import fit
from slm_trainer.losses import answer_loss
from slm_trainer.objectives import Objective
from slm_trainer.search.referee import Referee
from slm_trainer.tokens import Record, batches
from slm_trainer.train import seed_everything
from slm_trainer.watch import Watch, held_out_loss
from slmkit.run import Context, RunFailed
from slmops.contract import Hyperparameters, Learning, Reason, Trial, TrialResult
from tests.unit.images.test_torch_loop import Toy, records, wanted, weights

EARLY = {"early_stopping": {"patience": 3}, "evaluate_every": 5}


def by_heart(count: int = 8) -> tuple[list[Record], list[Record]]:
    """Answers that follow from nothing: what is learned of some says nothing of the others."""
    draw = torch.Generator().manual_seed(7)
    made = [Record(torch.randint(1, 12, (6,), generator=draw).tolist(), 2) for _ in range(2 * count)]
    return made[:count], made[count:]


def learned(train: list[Record], held_out: list[Record], **fields: Any) -> tuple[Toy, Learning, Watch]:
    seed_everything(3)
    model, plan = Toy(), wanted(**fields)
    watch = Watch(held_out, plan, 0, Curves())
    return model, fit(model, train, plan, 0, Objective(), Context(), watch), watch


def test_training_ends_early_with_the_weights_of_the_best_measurement() -> None:
    train, held_out = by_heart()
    model, found, watch = learned(train, held_out, max_steps=400, **EARLY)
    assert found.stopped_early
    assert found.steps < 400
    assert found.best_step == found.steps - 15, "three measurements, five steps apart, without an improvement"
    now = held_out_loss(model, held_out, wanted(), 0)
    assert now == pytest.approx(found.best_eval_loss, abs=1e-5), "the published weights are the best ones"
    assert now < watch.curves.points[-1].eval_loss, "the last ones were worse"
    assert not found.overfitted, "what is published is not what was learned by heart"


def test_without_early_stopping_learning_by_heart_is_a_warning() -> None:
    train, held_out = by_heart()
    _, found, _ = learned(train, held_out, max_steps=100, evaluate_every=5)
    assert (found.steps, found.stopped_early, found.overfitted) == (100, False, True)
    assert found.eval_loss > found.best_eval_loss
    assert len(found.curve) == 16
    assert {found.curve[0].step, found.curve[-1].step} == {5, 100}
    assert found.best_step in [point.step for point in found.curve]


def test_what_is_understood_is_no_learning_by_heart() -> None:
    _, found, _ = learned(records(64), records(16), max_steps=60, evaluate_every=10)
    assert not found.overfitted
    assert found.eval_loss < 0.1


def test_measuring_changes_nothing_of_the_training() -> None:
    train, held_out = records(64), records(16)
    model, _, _ = learned(train, held_out, max_steps=20, evaluate_every=3)
    blind, _, _ = learned(train, [], max_steps=20)
    assert torch.equal(weights(model), weights(blind))


def test_early_stopping_that_never_stops_still_keeps_the_best() -> None:
    train, held_out = by_heart()
    model, found, _ = learned(train, held_out, max_steps=60, early_stopping={"patience": 1000}, evaluate_every=5)
    assert (found.steps, found.stopped_early) == (60, False)
    assert held_out_loss(model, held_out, wanted(), 0) == pytest.approx(found.best_eval_loss, abs=1e-5)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_loss_on_held_out_records_is_a_mean_over_tokens_not_over_batches(size: int) -> None:
    seed_everything(1)
    model = Toy()
    mixed = [Record([1, 2, 3], 1), Record([4, 5, 6, 7, 8, 9], 5), Record([2, 3, 4, 5, 6], 2)]
    whole = next(iter(batches(mixed, 3, 0, 0)))
    expected = float(answer_loss(model(whole[0], whole[1]).logits, whole[2]))
    plan = Hyperparameters(batch_size=size, precision="FP32")
    assert held_out_loss(model, mixed, plan, 0) == pytest.approx(expected, abs=1e-5)


def test_curves_are_files_for_tensorboard_with_every_value(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c  # noqa: F401  (the format that is read here)

    curves = Curves(tmp_path / "logs")
    for step in (1, 2):
        curves.add(step, train_loss=1.0 / step, learning_rate=0.1, tokens_per_second=10.0)
    curves.add(2, eval_loss=0.25)
    files = curves.close()
    assert [name.startswith("events.out.tfevents") for name in files] == [True]
    data, found = next(iter(files.values())).read_bytes(), set()
    while data:  # length, its checksum, the event, its checksum
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        found |= {(value.tag, event.step, round(value.simple_value, 4)) for value in event.summary.value}
        data = data[16 + length :]
    assert {("train/loss", 1, 1.0), ("train/loss", 2, 0.5), ("eval/loss", 2, 0.25)} <= found
    assert {tag for tag, _, _ in found} == set(NAMES.values())
    assert [(p.step, p.train_loss, p.eval_loss) for p in curves.points] == [(2, 0.75, 0.25)]


def test_without_a_folder_nothing_is_written() -> None:
    curves = Curves()
    curves.add(1, train_loss=1.0)
    assert curves.close() == {}


def test_a_trial_that_others_are_better_than_is_ended() -> None:
    train, held_out = by_heart()
    space = ({"name": "epochs", "choice": [1]},)
    good = {"parameters": [1], "result": {"value": 0.0, "measured": [0.0, 0.0]}}
    search = {"space": space, "tried": [good] * 5}
    seed_everything(3)
    plan, referee = (
        wanted(max_steps=40, evaluate_every=5),
        Referee(Trial.model_validate({"number": 5, "search": search})),
    )
    found = fit(Toy(), train, plan, 0, Objective(), Context(), Watch(held_out, plan, 0, Curves(), referee))
    assert (found.steps, found.stopped_early, referee.pruned) == (5, False, True)
    result = referee.result(found.eval_loss)
    assert (result.pruned, result.value, len(result.measured)) == (True, None, 1)


@pytest.mark.parametrize("tried", [0, 5])  # five that are better end it after its first measurement
def test_a_trial_that_is_killed_at_its_end_reports_what_was_measured(tmp_path: Path, tried: int) -> None:
    train, held_out = by_heart()
    good = {"parameters": [1], "result": {"value": 0.0, "measured": [0.0, 0.0]}}
    search = {"space": ({"name": "epochs", "choice": [1]},), "tried": [good] * tried}
    plan = wanted(max_steps=20, evaluate_every=5, checkpoint={"every_steps": 5, "keep": 1})
    seed_everything(3)

    def attempt() -> tuple[int, TrialResult]:
        referee = Referee(Trial.model_validate({"number": tried, "search": search}))
        watch = Watch(held_out, plan, 0, Curves(), referee)
        found = fit(Toy(), train, plan, 0, Objective(), Context(work=tmp_path, state=tmp_path), watch)
        return found.steps, referee.result(found.eval_loss)

    first = attempt()
    assert first[0] == (5 if tried else 20)
    assert len(first[1].measured) == (1 if tried else 4)
    assert attempt() == first, "nothing was left to train"


def test_a_loss_on_held_out_records_that_is_no_number_ends_the_training() -> None:
    _, held_out = by_heart()
    model, plan = Toy(), wanted(max_steps=5, evaluate_every=5)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(RunFailed) as failed:
        Watch(held_out, plan, 0, Curves()).look(model, 5, 5, 5)
    assert failed.value.reason is Reason.TRAINING_DIVERGED
    assert failed.value.message == "the loss on held-out records is nan after step 5 of 5"
