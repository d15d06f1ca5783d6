"""The teacher, judged: by all records that have an answer, of very many by a sample."""

import pytest

from slm_trainer.label import judged as judging
from slm_trainer.label.judged import Judged
from slmkit.data import Example
from slmops.contract import Data, ExampleFormat, Figures, LabelRun, Sink, Source


def made(seed: int = 0) -> Judged:
    data = Data(source=Source(uri="pvc://claim/x"), format=ExampleFormat.MESSAGES)
    return Judged(LabelRun(run="x", train=data, output=Sink(repository="registry/x"), seed=seed))


def ask(answer: str | None) -> Example:
    return Example(({"role": "user", "content": "q"},), answer)


def test_records_without_an_answer_say_nothing() -> None:
    judged = made()
    judged.add(ask(None), "a")
    assert judged.figures() == Figures()
    judged.add(ask("a"), "a")
    judged.add(ask("a"), "b")
    assert (judged.figures().samples, judged.figures().exact_match) == (2, 0.5)


def test_of_very_many_a_sample_speaks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MOST", 200)
    found = []
    for seed in (0, 0, 1):
        judged = made(seed)
        for number in range(2000):  # the first half is right: the first 200 would all be
            judged.add(ask("a"), "a" if number < 1000 else "b")
        found.append(judged.figures())
    assert [figures.samples for figures in found] == [200] * 3
    assert found[0] == found[1] != found[2]
    assert all(0.35 < (figures.exact_match or 0) < 0.65 for figures in found)
