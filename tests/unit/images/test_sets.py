"""The sets of a training run: divided, sifted, counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from slm_trainer.dataset.sets import Sets, prepare
from slm_trainer.split import is_held_out
from slm_trainer.tasks import check
from slmkit.data import Example
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmops.contract import Reason, TrainRun
from tests.unit.images.volumes import data, give, write


def sets(volume: Path, **fields: Any) -> Sets:
    run = TrainRun.model_validate(
        {"run": "r", "output": {"repository": "r.example/x"}, "train": data("train")} | fields
    )
    context = Context(work=volume.parent.parent / "work")
    context.work.mkdir(exist_ok=True)
    made = prepare(run, context, Registry(run.registry))
    assert context.inputs["train"].startswith("pvc://claim/#sha256=")
    return made


def prompts(examples: Any) -> list[str]:
    return [example.prompt[-1]["content"] for example in examples]


def test_what_is_held_out_is_not_learned(volume: Path) -> None:
    give(volume, "train", ("a", "1"), ("b", "2"), ("c", None), ("a", "3"))
    give(volume, "held", ("b", "2"), ("d", None))
    made = sets(volume, validation=data("held"))
    assert prompts(made.training) == ["a", "a"]
    assert prompts(made.held_out) == ["b", "d"]
    counts = made.counts(tokens=5)
    assert (counts.prompts, counts.labelled, counts.kept, counts.tokens) == (6, 5, 4, 5)
    assert counts.dropped == {"Leaked": 1, "NoAnswer": 1}


def test_the_evaluations_own_data_are_kept_for_the_end_and_the_training_is_followed_by_the_others(volume: Path) -> None:
    give(volume, "train", ("a", "1"), ("b", "2"), ("c", "3"))
    give(volume, "held", ("a", "1"), ("d", "4"))
    give(volume, "judge", ("b", "2"))
    made = sets(volume, validation=data("held"), evaluation={"data": data("judge")})
    assert (prompts(made.held_out), prompts(made.watched)) == (["b"], ["a", "d"])
    assert prompts(made.training) == ["c"], "neither of them is learned"
    assert (made.tally.read, made.tally.kept, made.tally.dropped) == (6, 4, {"Leaked": 2})
    assert [prompts(part) for part in made.apart] == [["b"], ["a", "d"]]


def test_held_out_prompts_are_asked_under_the_system_message_of_those_that_are_learned(volume: Path) -> None:
    """Else the student would be asked in another way than it was taught, and a leak would not be seen."""
    system = {"role": "system", "content": "Be short."}
    taught = [{"messages": [system, {"role": "user", "content": prompt}, {"role": "assistant", "content": "1"}]}
              for prompt in ("a", "b", "c")]  # fmt: skip
    write(volume, "train", *taught)
    write(volume, "held", taught[0])
    own = {"messages": [{"role": "system", "content": "Be long."}, *taught[1]["messages"][1:]]}
    write(volume, "judge", own)
    made = sets(volume, train=data("train", "Messages"), validation=data("held", "Messages"), system_prompt="Be short.",
                evaluation={"data": data("judge", "Messages")})  # fmt: skip
    assert [example.messages() for example in made.held_out] == [taught[1]["messages"]]
    assert [example.messages() for example in made.watched] == [taught[0]["messages"]]
    assert prompts(made.training) == ["c"]
    assert made.tally.dropped == {"Leaked": 2}


@pytest.mark.parametrize("beside", ["\n", "", None])
def test_where_nothing_else_is_held_out_the_training_is_followed_by_the_evaluations_data(
    volume: Path, beside: str | None
) -> None:
    give(volume, "train", *((str(n), "x") for n in range(20)))
    give(volume, "judge", ("b", "2"))
    (volume / "none.jsonl").write_text(beside or "")
    validation = None if beside is None else data("none")
    made = sets(volume, validation=validation, validation_split=0.5, evaluation={"data": data("judge")})
    assert made.watched is made.held_out
    assert (prompts(made.held_out), len(made.training)) == (["b"], 20)
    assert len(made.apart) == 1


@pytest.mark.parametrize("apart", [True, False])
def test_one_set_that_is_held_out_is_for_both(volume: Path, apart: bool) -> None:
    give(volume, "train", *((str(n), "x") for n in range(40)))
    give(volume, "held", ("b", "2"))
    made = sets(volume, validation=data("held") if apart else None, validation_split=0.5)
    assert made.watched is made.held_out
    assert len(made.apart) == 1


def test_without_data_of_their_own_a_share_is_held_out_and_nothing_is_a_leak(volume: Path) -> None:
    give(volume, "train", *((str(n), "x") for n in range(200)))
    made = sets(volume, validation_split=0.25)
    assert len(made.training) + len(made.held_out) == 200
    assert 25 < len(made.held_out) < 80
    assert not made.tally.dropped
    assert all(is_held_out(example, 0.25) for example in made.held_out)
    assert not any(is_held_out(example, 0.25) for example in made.training)


def test_plain_texts_are_divided_by_what_they_say(volume: Path) -> None:
    (volume / "train.jsonl").write_text("\n".join(json.dumps({"text": f"text {n}"}) for n in range(100)))
    made = sets(volume, train=data("train", "Text"), validation_split=0.3)
    assert 10 < len(made.held_out) < 60
    assert len(made.training) + len(made.held_out) == 100


def test_filters_drop_what_is_trained_on_alone(volume: Path) -> None:
    give(volume, "train", ("a", "yes"), ("a", "no"), ("b", "perhaps"), ("c", "no"))
    give(volume, "held", ("x", "perhaps"), ("x", "perhaps"))
    made = sets(volume, validation=data("held"), filters={"labels": ["yes", "no"]})
    assert prompts(made.training) == ["a", "c"]
    assert len(made.held_out) == 2
    assert made.tally.dropped == {"Duplicate": 1, "InvalidLabel": 1}


@pytest.mark.parametrize(
    ("records", "words"),
    [([("a", None)], "1 NoAnswer"), ([("b", "1")], "1 Leaked"), ([("a", None), ("b", "1")], "1 Leaked, 1 NoAnswer")],
)
def test_nothing_to_learn_from_is_a_failure_that_says_where_it_went(
    volume: Path, records: list[tuple[str, str | None]], words: str
) -> None:
    give(volume, "train", *records)
    give(volume, "held", ("b", "2"))
    with pytest.raises(RunFailed) as failed:
        sets(volume, validation=data("held"))
    assert failed.value.reason is Reason.INVALID_DATA
    assert failed.value.message == f"pvc://claim/: no record is left to train on: {words}"


def test_a_record_that_is_refused_after_the_filters_is_still_named_by_file_and_line(volume: Path) -> None:
    """The second of those that are left is the third of the file."""
    give(volume, "train", ("a", "{}"), ("b", None), ("c", "word"))
    give(volume, "held", ("x", None), ("y", "word"))
    made = sets(volume, validation=data("held"))
    with pytest.raises(RunFailed, match=r"^task Extraction: train\.jsonl line 3: the answer is no JSON: 'word'$"):
        check("Extraction", made.training, made.held_out)
    with pytest.raises(RunFailed, match=r"^task Extraction: held-out held\.jsonl line 2: the answer is no JSON"):
        check("Extraction", [], made.held_out)
    with pytest.raises(RunFailed, match=r"^task Classification: held-out held\.jsonl line 2 has the label 'word'"):
        check("Classification", [Example((), answer) for answer in "aabb"], made.held_out)


def test_a_bad_record_fails_the_run_with_its_place(volume: Path) -> None:
    (volume / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": 5}')
    with pytest.raises(RunFailed, match=r"^train\.jsonl line 2: prompt: text is expected, found int$"):
        sets(volume)
