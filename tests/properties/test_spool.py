"""What lies on disk as lines is what was given, whatever texts it holds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_trainer.dataset.spool import Spool
from slm_trainer.label.answers import Question
from slm_trainer.label.questions import Asked
from slmkit.data import Example

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
messages = st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=3).map(tuple)
maybe = st.none() | texts


@settings(max_examples=40)
@given(st.lists(st.builds(Example, messages, maybe, maybe, maybe, texts), max_size=6))
def test_a_spool_gives_back_what_it_was_given_as_often_as_it_is_asked(
    tmp_path_factory: pytest.TempPathFactory, examples: list[Example]
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool") / "records")
    spool.write(examples[:3])
    spool.write(examples[3:])
    assert list(spool) == list(spool) == examples
    assert [each.origin for each in spool] == [each.origin for each in examples], "which no comparison looks at"
    assert len(spool) == len(examples)


@settings(max_examples=40)
@given(st.lists(st.builds(Question, messages, st.integers(0, 2**64), st.sampled_from(["00", "01", "02", "03"]))))
def test_a_question_is_asked_once_and_where_it_came_first(
    tmp_path_factory: pytest.TempPathFactory, questions: list[Question]
) -> None:
    asked = Asked(iter(questions), tmp_path_factory.mktemp("questions"))
    first = {each.key: each for each in reversed(questions)}
    assert list(asked) == list(asked) == sorted(first.values(), key=questions.index)
    assert len(asked) == len(first)
