"""Chain of thought and chain of density: what is asked, and what of the answer is learned."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_trainer.label.prompts import asked, result
from slmops.contract import LabelRun

USER = ({"role": "user", "content": "a"},)
DATA = {"source": {"uri": "pvc://claim/"}, "format": "Messages"}


def run(**fields: Any) -> LabelRun:
    return LabelRun.model_validate({"run": "r", "train": DATA, "output": {"repository": "r.example/x"}} | fields)


THOUGHT, DENSITY = run(task="Math", chain_of_thought=True), run(task="Summarization", chain_of_density=True)


def test_without_either_prompt_and_answer_stay_as_they_are() -> None:
    assert asked(run(), USER) == USER
    assert result(run(), ' {"answer": 5} ') == ' {"answer": 5} '


def test_what_is_asked_comes_after_the_system_message_of_the_record() -> None:
    own = ({"role": "system", "content": "Be kind."}, *USER)
    for wanted in (THOUGHT, DENSITY):
        system, user = asked(wanted, own)
        assert system["role"] == "system"
        assert system["content"].startswith("Be kind.\n\n")
        assert "JSON" in system["content"]
        assert user == USER[0]
        assert asked(wanted, USER)[0]["content"] == system["content"].removeprefix("Be kind.\n\n")


def test_how_an_answer_looks_depends_on_the_task() -> None:
    told = {task: asked(run(task=task, chain_of_thought=True), USER)[0]["content"] for task in ("Math", "NLI")}
    assert "the final result alone" in told["Math"]
    assert "the label alone" in told["NLI"]


def test_a_summary_has_the_wanted_length() -> None:
    assert "more than 80 words" in asked(DENSITY, USER)[0]["content"]
    shorter = run(task="Summarization", chain_of_density=True, max_summary_words=33)
    assert "more than 33 words" in asked(shorter, USER)[0]["content"]


@pytest.mark.parametrize(
    ("text", "learned"),
    [
        ('{"reasoning": "r", "answer": "yes"}', "yes"),
        ('{"reasoning": "r", "answer": 12}', "12"),
        ('{"reasoning": "r", "answer": 1.5}', "1.5"),
        ('```json\n{"answer": " yes "}\n```', "yes"),
        ('\n```\n{"answer": "yes"}```\n', "yes"),
        ("yes", None),
        ('{"reasoning": "r"}', None),
        ('{"answer": ""}', None),
        ('{"answer": true}', None),
        ('{"answer": {"a": 1}}', None),
        ('["yes"]', None),
        ('{"reasoning": "cut', None),
        ("[" * 100_000, None),
    ],
)
def test_the_answer_is_told_from_the_reasoning(text: str, learned: str | None) -> None:
    assert result(THOUGHT, text) == learned


@pytest.mark.parametrize(
    ("said", "learned"),
    [
        ([{"missing": "a", "summary": "long"}, {"missing": "b", "summary": "dense"}], "dense"),
        ([{"summary": "dense"}], "dense"),
        ([{"summary": "long"}, {"missing": "b"}], None),
        ([], None),
        ({"summary": "dense"}, None),
        (["dense"], None),
    ],
)
def test_the_last_summary_is_what_counts(said: object, learned: str | None) -> None:
    assert result(DENSITY, json.dumps(said)) == learned


@given(st.text(max_size=200))
def test_whatever_a_teacher_says_is_a_result_or_none(text: str) -> None:
    for wanted in (THOUGHT, DENSITY):
        found = result(wanted, text)
        assert found is None or found == found.strip() != ""
