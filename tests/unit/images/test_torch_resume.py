"""A training that is interrupted goes on as if nothing had been: the same loss at each step, the same weights after."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors import safe_open

from slm_trainer.checkpoints import Checkpoints, RandomNumbers, Weights
from slm_trainer.curves import Curves
from slm_trainer.loop import fit
from slm_trainer.objectives import Objective
from slm_trainer.objectives.base import by_labels
from slm_trainer.tokens import Record
from slm_trainer.train import seed_everything
from slm_trainer.watch import Watch
from slmkit.budget import Guard
from slmkit.run import Context, RunFailed, execute
from slmops.contract import Budget, Hyperparameters, Reason
from tests.unit.images.toys import Toy, records, wanted, weights

torch.set_num_threads(1)
EVERY = {"checkpoint": {"every_steps": 5, "keep": 2}}


class Killed(BaseException):
    """What no program can catch."""


class Training:
    """Attempts at one training, on one volume."""

    def __init__(self, folder: Path, dropout: float = 0.2, held_out: int = 0, **fields: Any) -> None:
        self.settings: Hyperparameters = wanted(**fields)
        self.folder, self.dropout, self.held_out = folder, dropout, held_out
        folder.mkdir(exist_ok=True)
        self.losses: list[float] = []
        """Of each batch of the last attempt."""
        self.context = Context()
        self.seed = 42
        self.inputs = {"base": "oci://r/base@sha256:1", "train": "oci://r/data@sha256:1"}
        self.records = records()

    @property
    def kept(self) -> list[str]:
        """The checkpoints on the volume."""
        return sorted(path.name for path in (self.folder / "checkpoints").iterdir() if path.is_dir())

    def attempt(self, kill_at: int | None = None, stop_at: int | None = None, guard: Guard | None = None) -> Toy:
        """Train until a batch, or to the end. Each attempt begins with random weights of its own."""
        seed_everything(self.seed)
        self.seed += 1
        model, self.losses = Toy(self.dropout), []
        self.context = Context(work=self.folder / "work", state=self.folder)
        self.context.guard = guard
        self.context.inputs |= self.inputs

        def noted(*batch: Any) -> Any:
            if len(self.losses) == kill_at:
                raise Killed
            loss = by_labels(*batch)
            self.losses.append(float(loss.detach()))
            if len(self.losses) == stop_at:
                self.context.stopping.set()
            return loss

        held_out = records(self.held_out)
        self.watch = Watch(held_out, self.settings, 0, Curves())
        self.learning = fit(model, self.records, self.settings, 0, Objective(noted), self.context, self.watch)
        return model


SETTINGS = [
    {"precision": "FP32"}, {"precision": "BF16"}, {"precision": "FP16"}, {"gradient_accumulation": 3},
    {"batch_size": 7, "scheduler": "Linear", "warmup_ratio": 0.3},
]  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("killed", [13, 24])
def test_a_killed_training_has_the_loss_of_one_that_was_not(
    tmp_path: Path, settings: dict[str, Any], killed: int
) -> None:
    whole = Training(tmp_path / "whole", **settings)
    expected, curve = whole.attempt(), list(whole.losses)
    passes = len(curve) // whole.settings.max_steps if whole.settings.max_steps else 1
    broken = Training(tmp_path / "broken", **settings | EVERY)
    with pytest.raises(Killed):
        broken.attempt(kill_at=killed * passes)
    before = list(broken.losses)
    model = broken.attempt()
    made = killed // 5 * 5
    begun = len(curve) - len(broken.losses)
    assert begun == pytest.approx(made * passes, abs=passes * 3), "only what came after the checkpoint is made again"
    assert before[:begun] + broken.losses == pytest.approx(curve, abs=1e-6)
    assert torch.allclose(weights(model), weights(expected), atol=1e-6)


def test_without_the_checkpoint_the_curve_is_another(tmp_path: Path) -> None:
    """What the test above would see if nothing were restored."""
    one, other = Training(tmp_path / "one"), Training(tmp_path / "other")
    one.attempt()
    other.seed = 50
    other.attempt()
    assert one.losses != pytest.approx(other.losses, abs=1e-3)


def test_early_stopping_remembers_what_was_best(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "max_steps": 60,
        "evaluate_every": 4,
        "early_stopping": {"patience": 2},
        "learning_rate": 0.3,
    }
    whole = Training(tmp_path / "whole", held_out=8, **settings)
    expected = whole.attempt()
    end = len(whole.losses)
    assert whole.learning.stopped_early, "the settings are to make it stop"
    broken = Training(tmp_path / "broken", held_out=8, **settings | EVERY)
    with pytest.raises(Killed):
        broken.attempt(kill_at=end - 1)
    model = broken.attempt()
    assert broken.learning == whole.learning
    assert torch.allclose(weights(model), weights(expected), atol=1e-6)
    again = broken.attempt()
    assert broken.losses == [], "it had ended early, and there is nothing more to do"
    assert torch.allclose(weights(again), weights(expected), atol=1e-6)


def test_whoever_is_told_to_stop_keeps_its_last_step_and_loses_none(tmp_path: Path) -> None:
    training = Training(tmp_path, **EVERY)
    with pytest.raises(RunFailed) as stopped:
        training.attempt(stop_at=13)
    assert stopped.value.reason is Reason.TERMINATED
    assert training.kept[-1] == "step-000000013"
    training.attempt()
    assert len(training.losses) == 17
    said = training.context.progress
    assert (said.step, said.last_checkpoint, said.resumes, said.lost_steps) == (30, 30, 1, 0)


def test_what_a_kill_has_cost_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_trainer.checkpoints.NOTED_EVERY", 0.0)
    training = Training(tmp_path, **EVERY)
    for killed in (13, 9):  # the second attempt begins at step 10
        with pytest.raises(Killed):
            training.attempt(kill_at=killed)
    training.attempt()
    said = training.context.progress
    assert (said.resumes, said.lost_steps) == (2, 3 + 4)


def test_an_attempt_that_ends_before_its_first_checkpoint_has_been_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slm_trainer.checkpoints.NOTED_EVERY", 0.0)
    training = Training(tmp_path, **EVERY)
    for killed in (13, 1, 2):  # after the first, each begins at step 10 and is kept no more
        with pytest.raises(Killed):
            training.attempt(kill_at=killed)
    training.attempt()
    said = training.context.progress
    assert (said.resumes, said.lost_steps) == (3, 3 + 1 + 2)


def test_a_training_over_its_budget_is_kept_for_the_day_that_there_is_more(tmp_path: Path) -> None:
    training = Training(tmp_path, **EVERY)
    with pytest.raises(RunFailed) as stopped:
        training.attempt(guard=Guard(Budget(gpus=1, gpu_hours=1e-12)))
    assert stopped.value.reason is Reason.BUDGET_EXCEEDED
    assert training.kept[-1] == f"step-{training.context.progress.step:09}"


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    training = Training(tmp_path, **EVERY)
    expected = training.attempt()
    model = training.attempt()
    assert training.losses == []
    assert torch.equal(weights(model), weights(expected))
    assert training.learning.steps == 30


def test_nothing_is_kept_where_nobody_asked(tmp_path: Path) -> None:
    Training(tmp_path).attempt()
    assert not (tmp_path / "checkpoints").exists()


# --- on the disk -----------------------------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    """One byte is another one."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json", "checkpoint.json"])
@pytest.mark.parametrize("harm", ["cut", "spoilt", "gone"])
def test_a_torn_checkpoint_is_skipped_for_the_one_before(tmp_path: Path, name: str, harm: str) -> None:
    training = Training(tmp_path, **EVERY)
    with pytest.raises(Killed):
        training.attempt(kill_at=13)
    assert training.kept == ["step-000000005", "step-000000010"]
    file = tmp_path / "checkpoints" / "step-000000010" / name
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    elif harm == "spoilt":
        spoil(file)
    else:
        file.unlink()
    training.attempt()
    assert len(training.losses) == 25


def test_with_none_that_is_whole_it_begins_anew(tmp_path: Path) -> None:
    training = Training(tmp_path, **EVERY)
    with pytest.raises(Killed):
        training.attempt(kill_at=13)
    for folder in (tmp_path / "checkpoints").glob("step-*"):
        (folder / "weights.safetensors").write_bytes(b"")
    training.attempt()
    assert len(training.losses) == 30


def parts() -> tuple[torch.nn.Module, dict[str, Any]]:
    model = torch.nn.Linear(3, 2)
    return model, {"random": RandomNumbers(), "weights": Weights(model)}


def test_a_write_that_breaks_off_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, kept = parts()
    one = Checkpoints(tmp_path, 1, 2, {})
    one.save(1, kept)
    before = weights(model)
    with torch.no_grad():
        model.weight.add_(1.0)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space left"):
            one.save(2, kept)
    assert Checkpoints(tmp_path, 1, 2, {}).load(kept) == 1
    assert torch.equal(weights(model), before)
    one.save(2, kept)
    assert Checkpoints(tmp_path, 1, 2, {}).load(kept) == 2, "what the broken write left is no hindrance"


def test_a_checkpoint_of_another_training_is_not_taken(tmp_path: Path) -> None:
    _, kept = parts()
    Checkpoints(tmp_path, 1, 2, {"data": "a"}).save(7, kept)
    assert Checkpoints(tmp_path, 1, 2, {"data": "b"}).load(kept) == 0
    assert Checkpoints(tmp_path, 1, 2, {"data": "a"}).load(kept) == 7
    assert Training(tmp_path / "t", **EVERY).settings != Training(tmp_path / "t", learning_rate=0.1, **EVERY).settings


@pytest.mark.parametrize("moved", ["nothing", "base", "train", "records"])
def test_a_checkpoint_from_before_a_tag_was_moved_is_not_taken(tmp_path: Path, moved: str) -> None:
    training = Training(tmp_path, **EVERY)
    with pytest.raises(Killed):
        training.attempt(kill_at=13)
    if moved == "records":  # a volume's files have no digest; as many of the same length
        training.records[3] = Record([token + 1 for token in training.records[3].tokens], 2)
    elif moved != "nothing":
        training.inputs[moved] = training.inputs[moved].replace(":1", ":2")
    training.attempt()
    assert len(training.losses) == (20 if moved == "nothing" else 30)


def test_what_another_training_kept_makes_no_room_scarce(tmp_path: Path) -> None:
    """Data that was published again, after a failure far along: the volume has higher steps than those to come."""
    before = Training(tmp_path, **EVERY)
    with pytest.raises(Killed):
        before.attempt(kill_at=28)
    assert before.kept == ["step-000000020", "step-000000025"]
    training = Training(tmp_path, **EVERY)
    training.records = records(56)
    with pytest.raises(Killed):
        training.attempt(kill_at=13)
    assert training.kept == ["step-000000005", "step-000000010"]
    training.attempt()
    assert len(training.losses) == 20, "it goes on from its own"


def test_a_torn_checkpoint_does_not_push_out_the_next_that_is_whole(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"checkpoint": {"every_steps": 5, "keep": 1}}
    training = Training(tmp_path, **settings)
    with pytest.raises(Killed):
        training.attempt(kill_at=28)
    (tmp_path / "checkpoints" / "step-000000025" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(Killed):
        training.attempt(kill_at=13)
    training.attempt()
    assert len(training.losses) == 20


def test_no_more_are_kept_than_was_asked(tmp_path: Path) -> None:
    training = Training(tmp_path, checkpoint={"every_steps": 4, "keep": 3})
    training.attempt()
    assert training.kept == ["step-000000024", "step-000000028", "step-000000030"]


def test_nothing_in_a_checkpoint_could_run_code(tmp_path: Path) -> None:
    training = Training(tmp_path, **EVERY)
    training.attempt()
    for path in (tmp_path / "checkpoints" / training.kept[-1]).iterdir():
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        else:
            with safe_open(path, "pt") as file:
                list(file.keys())


def test_what_is_frozen_is_not_kept(tmp_path: Path) -> None:
    model = Toy()
    model.embed.requires_grad_(False)
    assert set(Weights(model).state_dict()) == {"mix.weight", "mix.bias", "out.weight", "out.bias"}


def test_the_report_says_how_often_it_was_taken_up_again() -> None:
    context = Context()
    context.kept(400, 2, 12)
    report = execute({}, [], context)
    assert (report.resumes, report.lost_steps) == (2, 12)
