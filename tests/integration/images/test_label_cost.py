"""What labelling costs, what is not paid for again, and several answers to a prompt."""

import json
from typing import Any

import pytest

from slmops.contract import Reason
from tests.unit.images import volumes
from tests.unit.images.asker import refused
from tests.unit.images.fakellm import FakeLLM, Reply
from tests.unit.images.labelling import Labelling

# --- what it costs, and what is not paid for again


def test_what_the_teacher_read_and_wrote_is_counted_for_dropped_answers_too(labelling: Labelling) -> None:
    labelling.give({"prompt": "a b c"}, {"prompt": "d"}, {"prompt": "d"})
    counted = {"a b c": Reply("1 2"), "d": Reply("3 4 5", finish="length")}
    report = labelling.label(FakeLLM(lambda text, time: counted[text]), filters={"deduplicate": False})
    assert report.dataset is not None
    assert (report.dataset.prompt_tokens, report.dataset.completion_tokens, report.dataset.tokens) == (4, 5, 2)
    assert (report.dataset.estimated, report.dataset.reused) == (0, 0)


def test_answers_of_no_use_are_paid_for_and_counted_in_whatever_attempt_they_came(labelling: Labelling) -> None:
    labelling.give({"prompt": "a"}, {"prompt": "b"})
    usage = {"prompt_tokens": 10, "completion_tokens": 100}
    bad = [Reply(body=json.dumps({"choices": choices, "usage": usage}).encode())
           for choices in ([], [{"message": {"content": None}, "finish_reason": "stop"}])]  # fmt: skip
    first = FakeLLM(lambda text, time: bad[time % 2] if text == "a" else Reply())
    failed = refused(lambda: labelling.label(first, endpoint=asked(first, retries=3)))
    assert failed.message.endswith("most often: 1 NoChoices")
    second = FakeLLM(lambda text, time: bad[1] if time == 1 else Reply(), port=first.port)
    report = labelling.label(second, endpoint=asked(second, retries=3))
    assert (first.counts["a"], second.counts["a"]) == (4, 2)
    assert report.dataset is not None
    assert (report.dataset.prompt_tokens, report.dataset.completion_tokens) == (5 * 10 + 2, 5 * 100 + 2)
    assert report.dataset.reused == 1


def test_prompts_that_nobody_needs_are_not_asked(labelling: Labelling) -> None:
    """Where the student is measured by records of their own none is held out: what is paid for is learned."""
    labelling.give(*({"prompt": str(i)} for i in range(40)))
    labelling.give({"prompt": "x", "completion": "x"}, name="judge")
    report = labelling.label(validation_split=0.5, evaluation=volumes.data("judge"))
    assert len(labelling.made(report, "train")) == 40
    assert labelling.file(report, "validation.jsonl") == b"\n", "no record, and not a file that registries refuse"
    assert sorted(labelling.llm.prompts()) == sorted([*map(str, range(40)), "x"])
    without = FakeLLM(port=labelling.llm.port)
    report = labelling.label(without, validation_split=0.5)
    assert 10 < len(labelling.made(report, "validation")) < 30


def asked(llm: FakeLLM, **fields: Any) -> dict[str, Any]:
    """A teacher behind an address."""
    return {"url": f"{llm.url}/v1", "model": "m"} | fields


def test_a_teacher_that_does_not_count_is_said_to_be_estimated(labelling: Labelling) -> None:
    labelling.give({"prompt": "12345678"}, {"prompt": "b"})
    report = labelling.label(FakeLLM(lambda text, time: Reply("1234", usage=None if text != "b" else "counted")))
    assert report.dataset is not None
    assert (report.dataset.prompt_tokens, report.dataset.completion_tokens) == (2 + 1, 1 + 1)
    assert report.dataset.estimated == 1


def test_another_attempt_asks_for_the_rest_alone(labelling: Labelling) -> None:
    labelling.give(*({"prompt": str(i)} for i in range(6)))
    first = FakeLLM(lambda text, time: Reply(f"to {text}") if int(text) < 4 else Reply(status=500))
    assert refused(lambda: labelling.label(first)).reason is Reason.TOO_FEW_ANSWERS
    report = labelling.label(FakeLLM(lambda text, time: Reply(f"then {text}"), port=first.port))
    assert sorted(labelling.llm.prompts()) == ["4", "5"]
    assert labelling.made(report, "train") == [(str(i), f"{'to' if i < 4 else 'then'} {i}") for i in range(6)]
    assert report.dataset is not None
    assert (report.dataset.reused, report.dataset.completion_tokens) == (4, 12)


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"sampling": {"temperature": 0.1}}, {"system_prompt": "be short"}],
    ids=lambda c: next(iter(c)),
)
def test_answers_to_another_question_are_not_taken(labelling: Labelling, change: dict[str, Any]) -> None:
    labelling.give({"prompt": "a"})
    labelling.label()
    again = FakeLLM(port=labelling.llm.port)
    labelling.label(again)
    assert again.asked == []
    third = FakeLLM(port=labelling.llm.port)
    labelling.label(third, **change)
    assert third.counts["a"] == 1


# --- several answers to a prompt


def test_several_samples_are_asked_with_seeds_of_their_own_and_each_text_is_kept_once(labelling: Labelling) -> None:
    labelling.give({"prompt": "a"}, {"prompt": "b"})
    llm = FakeLLM(lambda text, time: Reply("same" if text == "a" else f"{time}"))
    report = labelling.label(llm, sampling={"samples": 3, "temperature": 1}, seed=40)
    made = labelling.made(report, "train")
    assert made[0] == ("a", "same")
    assert sorted(answer for _, answer in made[1:]) == ["1", "2", "3"]
    assert sorted(body["seed"] for _, body in llm.asked if body["messages"][-1]["content"] == "a") == [40, 41, 42]
    assert report.dataset is not None
    assert (report.dataset.prompts, report.dataset.labelled, report.dataset.kept) == (2, 2, 4)


def test_a_sample_that_fails_leaves_the_others(labelling: Labelling) -> None:
    labelling.give({"prompt": "a"})
    llm = FakeLLM(lambda text, time: Reply(status=422) if time == 1 else Reply("good"))
    report = labelling.label(llm, sampling={"samples": 2, "temperature": 1})
    assert labelling.made(report, "train") == [("a", "good")]


def test_held_out_prompts_are_asked_once(labelling: Labelling) -> None:
    labelling.give({"prompt": "a"})
    labelling.give({"prompt": "v"}, name="held")
    held = volumes.data("held")
    labelling.label(validation=held, sampling={"samples": 3, "temperature": 1})
    assert (labelling.llm.counts["a"], labelling.llm.counts["v"]) == (3, 1)
