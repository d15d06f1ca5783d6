"""Objectives on tiny models: hints on disk say what the teacher says, layers are found, misfits are refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from slm_trainer.loop import fit
from slm_trainer.losses import answer_loss, attention_loss, distillation_loss, hint_loss, likeliest
from slm_trainer.model import new_model, save, train_tokenizer
from slm_trainer.objectives import objective_of
from slm_trainer.objectives.features import pairs_of
from slm_trainer.objectives.hints import Hints
from slm_trainer.objectives.vocabulary import check_same
from slm_trainer.tokens import Record, batches, collate, encode
from slm_trainer.train import seed_everything
from slmkit.data import Example
from slmkit.run import Context, RunFailed
from slmops.contract import (
    Architecture,
    Data,
    ExampleFormat,
    Hyperparameters,
    LayerPair,
    Objective,
    Reason,
    Sink,
    Source,
    TrainRun,
)

torch.set_num_threads(1)
EXAMPLES = [
    Example(({"role": "user", "content": f"count on from {n}"},), " ".join(str(n + i) for i in range(1, 2 + n % 4)))
    for n in range(24)
]
TOKENIZER = train_tokenizer(EXAMPLES, 300)


def model(width: int, layers: int, seed: int = 1) -> Any:
    seed_everything(seed)
    return new_model(
        Architecture(hidden_size=width, layers=layers, attention_heads=4, key_value_heads=2, intermediate_size=96,
                     vocabulary_size=len(TOKENIZER)), TOKENIZER,
    ).eval()  # fmt: skip


def records() -> list[Record]:
    found, dropped = encode(TOKENIZER, EXAMPLES, 200)
    assert not dropped
    return found


def run(**objective: Any) -> TrainRun:
    data = Data(source=Source(uri="oci://x/y:z"), format=ExampleFormat.MESSAGES)
    return TrainRun(run="test", train=data, output=Sink(repository="x/y"), objective=Objective(**objective),
                    hyperparameters=Hyperparameters(batch_size=5))  # fmt: skip


def saved(width: int, layers: int, folder: Path) -> Path:
    save(model(width, layers, seed=2), TOKENIZER, folder)
    return folder


def batch(given: Sequence[Record]) -> tuple[Any, Any, Any]:
    return collate(given, TOKENIZER.pad_token_id)


# --- what the teacher hints ----------------------------------------------------------------------------------------


def test_hints_from_disk_are_what_the_teacher_says_in_whatever_order_they_are_asked_for(tmp_path: Path) -> None:
    teacher, given = model(64, 3), records()
    hints = Hints(tmp_path / "hints", 7)
    hints.fill(lambda: teacher, given, 5, len(TOKENIZER), Context(work=tmp_path))
    for tokens, mask, labels in batches(given, 3, TOKENIZER.pad_token_id, seed=9):
        with torch.inference_mode():
            wanted, ids = likeliest(teacher(input_ids=tokens, attention_mask=mask).logits, labels, 7, len(TOKENIZER))
        found, index = hints.of(tokens, mask, labels)
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)
        assert (index == ids).float().mean() > 0.99, "tokens that are equally likely may change places"


def test_hints_take_six_bytes_for_each_of_the_tokens_that_are_kept(tmp_path: Path) -> None:
    given = records()
    Hints(tmp_path, 7).fill(lambda: model(64, 3), given, 5, len(TOKENIZER), Context(work=tmp_path))
    positions = sum(len(record.tokens) - record.start for record in given)
    (kept,) = tmp_path.iterdir()
    sizes = {file.name: file.stat().st_size for file in kept.iterdir()}
    assert sizes.pop("places") == 24 * len(given)
    assert sum(sizes.values()) == positions * 7 * 6


def of_all(hints: Hints) -> list[torch.Tensor]:
    """What the hints are of all records."""
    found = [hints.of(*made) for made in batches(records(), 5, TOKENIZER.pad_token_id, seed=9)]
    return [tensor for pair in found for tensor in pair]


def test_another_attempt_asks_the_teacher_nothing(tmp_path: Path) -> None:
    """Its teacher is not even loaded."""
    asked: list[str] = []

    def attempt(teacher: str = "oci://t@sha256:1", k: int = 7, given: Sequence[Record] = ()) -> Hints:
        def load() -> Any:
            asked.append(teacher)
            return model(64, 3)

        hints = Hints(tmp_path / "hints", k, teacher)
        hints.fill(load, given or records(), 5, len(TOKENIZER), Context(work=tmp_path))
        return hints

    first = of_all(attempt())
    assert len(asked) == 1
    again = of_all(attempt())
    assert len(asked) == 1
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    attempt("oci://t@sha256:2")
    attempt(k=8)
    attempt(given=records()[1:])
    attempt(given=[Record(record.tokens, record.start - 1) for record in records()])
    assert len(asked) == 5, "those of another teacher, number or data are not taken"
    attempt()
    assert len(asked) == 5


@pytest.mark.parametrize("harm", ["killed", "logits", "ids", "places", "gone"])
def test_hints_that_were_torn_are_asked_for_again(tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def attempt() -> Hints:
        hints = Hints(tmp_path, 7)
        hints.fill(lambda: asked.append(1) or model(64, 3), records(), 5, len(TOKENIZER), Context(work=tmp_path))
        return hints

    def killed(self: Context, number: int) -> None:
        if number > 5:  # the second batch
            raise KeyboardInterrupt

    expected = None
    if harm == "killed":
        with monkeypatch.context() as patch:
            patch.setattr(Context, "step", killed)
            with pytest.raises(KeyboardInterrupt):
                attempt()
    else:
        expected = of_all(attempt())
        (kept,) = tmp_path.iterdir()
        if harm == "gone":
            (kept / "ids").unlink()
        else:
            (kept / harm).write_bytes((kept / harm).read_bytes()[:-40])
    found = of_all(attempt())
    assert len(asked) == 2
    assert [path.name.startswith(".") for path in tmp_path.iterdir()] == [False], "and nothing else is left"
    if expected:
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


def test_hints_lie_on_the_volume(tmp_path: Path) -> None:
    folder = saved(64, 3, tmp_path / "teacher")
    (tmp_path / "volume").mkdir()
    for attempt in ("first", "second"):
        context = Context(work=tmp_path / attempt, state=tmp_path / "volume")
        context.inputs["teacher"] = "oci://t@sha256:1"
        objective_of(run(type="Logits"), folder, model(32, 2), TOKENIZER, records(), context)
        assert context.progress.stage == ("Asking the teacher" if attempt == "first" else "Starting")


def test_the_teacher_is_asked_about_each_record_once_however_many_epochs(tmp_path: Path) -> None:
    asked: list[int] = []
    folder = saved(64, 3, tmp_path / "teacher")
    student, given = model(32, 2), records()
    context = Context(work=tmp_path)
    forward = type(student).forward

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        if self.config.hidden_size == 64:
            asked.append(len(options["input_ids"]))
        return forward(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(student), "forward", counted)
        objective = objective_of(run(type="Logits"), folder, student, TOKENIZER, given, context)
        wanted = Hyperparameters(epochs=4, batch_size=5, precision="FP32")
        fit(student, given, wanted, TOKENIZER.pad_token_id, objective, context)
    assert sum(asked) == len(given)


def test_the_objective_over_hints_is_the_loss_of_distillation(tmp_path: Path) -> None:
    folder, student, given = saved(64, 3, tmp_path / "teacher"), model(32, 2), records()
    wanted = run(type="Logits", temperature=3.0, alpha=0.7, top_k=9)
    objective = objective_of(wanted, folder, student, TOKENIZER, given, Context(work=tmp_path))
    tokens, mask, labels = batch(given[:4])
    teacher = model(64, 3, seed=2)
    with torch.inference_mode():
        output = student(input_ids=tokens, attention_mask=mask)
        hints = likeliest(teacher(input_ids=tokens, attention_mask=mask).logits, labels, 9, len(TOKENIZER))
        loss = distillation_loss(output.logits, labels, *hints, temperature=3.0, alpha=0.7)
    assert float(objective.loss(output, tokens, mask, labels)) == pytest.approx(float(loss), rel=1e-3)
    assert not list(objective.extra.parameters())


# --- what the teacher's layers hold --------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", [False, True])
def test_the_objective_over_features_is_its_formula(tmp_path: Path, attention: bool) -> None:
    folder, student, given = saved(64, 3, tmp_path / "teacher"), model(64, 2), records()
    pairs = [{"student": 1, "teacher": 2}, {"student": 2, "teacher": 3}]
    wanted = run(type="Features", alpha=0.3, layers=pairs, attention=attention)
    objective = objective_of(wanted, folder, student, TOKENIZER, given, Context(work=tmp_path))
    tokens, mask, labels = batch(given[:6])
    shown = {"output_hidden_states": True, "output_attentions": True}
    with torch.inference_mode():
        output = student(input_ids=tokens, attention_mask=mask, **shown)
        hints = model(64, 3, seed=2)(input_ids=tokens, attention_mask=mask, **shown)
        terms = [float(hint_loss(output.hidden_states[s], hints.hidden_states[t], mask)) for s, t in ((1, 2), (2, 3))]
        if attention:
            maps = ((0, 1), (1, 2))
            terms += [float(attention_loss(output.attentions[s], hints.attentions[t], mask)) for s, t in maps]
        loss = 0.3 * sum(terms) / 2 + 0.7 * float(answer_loss(output.logits, labels))
        found = float(objective.loss(output, tokens, mask, labels))
    assert found == pytest.approx(loss, rel=1e-5)
    assert objective.options.get("output_attentions", False) is attention
    assert not list(objective.extra.parameters()), "of the same width nothing has to be made wider"


def test_a_narrow_student_comes_nearer_to_its_teacher_through_what_is_learned_beside_it(tmp_path: Path) -> None:
    folder, student, given = saved(64, 3, tmp_path / "teacher"), model(32, 2), records()
    wanted = run(type="Features", alpha=1.0, attention=True)
    objective = objective_of(wanted, folder, student, TOKENIZER, given, Context(work=tmp_path))
    assert [tuple(p.shape) for p in objective.extra.parameters()] == [(64, 32), (64, 32)]
    tokens, mask, labels = batch(given)

    def distance() -> float:
        with torch.inference_mode():
            output = student(input_ids=tokens, attention_mask=mask, **objective.options)
            return float(objective.loss(output, tokens, mask, labels))

    before = distance()
    plan = Hyperparameters(epochs=30, batch_size=8, learning_rate=1e-2, precision="FP32")
    fit(student, given, plan, TOKENIZER.pad_token_id, objective, Context(work=tmp_path))
    assert distance() < 0.7 * before
    assert {name for name, _ in student.named_parameters()} == {name for name, _ in model(32, 2).named_parameters()}


@pytest.mark.parametrize(
    ("ours", "theirs", "pairs"),
    [(2, 6, [(1, 3), (2, 6)]), (3, 3, [(1, 1), (2, 2), (3, 3)]), (1, 6, [(1, 6)]), (2, 3, [(1, 2), (2, 3)]),
     (4, 2, [(1, 1), (2, 1), (3, 2), (4, 2)])],
)  # fmt: skip
def test_without_a_map_layers_are_spread_over_the_depth(ours: int, theirs: int, pairs: list[tuple[int, int]]) -> None:
    found = pairs_of((), model(32, ours).config, model(32, theirs).config)
    assert [(pair.student, pair.teacher) for pair in found] == pairs


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [(3, 1, "objective.layers[1].student is 3: the student has layers 1 to 2"),
     (2, 4, "objective.layers[1].teacher is 4: the teacher has layers 1 to 3"),
     (0, 1, "objective.layers[1].student is 0: the student has layers 1 to 2")],
)  # fmt: skip
def test_a_layer_that_is_not_there_is_named(student: int, teacher: int, words: str) -> None:
    wanted = [LayerPair(student=1, teacher=1), LayerPair(student=student, teacher=teacher)]
    with pytest.raises(RunFailed) as failed:
        pairs_of(wanted, model(32, 2).config, model(32, 3).config)
    assert (failed.value.reason, failed.value.message) == (Reason.LAYER_NOT_FOUND, words)


# --- one vocabulary ------------------------------------------------------------------------------------------------


def test_the_same_number_of_tokens_is_not_the_same_vocabulary() -> None:
    other = train_tokenizer([Example(({"role": "user", "content": "etwas ganz anderes"},), "ja")] * 9, 300)
    check_same(TOKENIZER, TOKENIZER, "Logits")
    with pytest.raises(RunFailed) as failed:
        check_same(other, TOKENIZER, "Logits")
    assert failed.value.reason is Reason.VOCABULARY_MISMATCH
    assert "objective Logits needs one vocabulary" in failed.value.message


class Words:
    """A tokenizer of a few words."""

    def __init__(self, *words: str) -> None:
        self._words = {word: number for number, word in enumerate(words)}

    def get_vocab(self) -> dict[str, int]:
        return self._words


@pytest.mark.parametrize(
    ("teacher", "words"),
    [(("a", "c", "b"), "2 of the student's 3 tokens differ, for example 'b' is token 1 for the student and token 2 for"),
     (("a", "b"), "1 of the student's 3 tokens differ, for example 'c' is token 2 for the student and no token for")],
)  # fmt: skip
def test_a_vocabulary_that_differs_is_told_by_example(teacher: tuple[str, ...], words: str) -> None:
    with pytest.raises(RunFailed) as failed:
        check_same(Words(*teacher), Words("a", "b", "c"), "Features")
    assert words in failed.value.message


def test_what_only_the_teacher_has_is_never_hinted_at() -> None:
    check_same(Words("a", "b", "c", "d"), Words("a", "b", "c"), "Logits")
    teacher = torch.zeros(1, 3, 4)
    teacher[..., 3] = 9
    _, index = likeliest(teacher, torch.tensor([[0, 1, 2]]), 2, vocabulary=3)
    assert int(index.max()) < 3
