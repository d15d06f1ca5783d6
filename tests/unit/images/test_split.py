"""Which records are held out: always the same, about as many as wanted."""

from slm_trainer.split import is_held_out
from slmkit.data import Example


def prompts(*texts: str) -> list[Example]:
    return [Example(({"role": "user", "content": text},), None) for text in texts]


def split(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    return ([e for e in examples if not is_held_out(e, share)], [e for e in examples if is_held_out(e, share)])


def test_the_same_record_is_held_out_each_time_and_about_as_many_as_wanted() -> None:
    examples = prompts(*(f"prompt {i}" for i in range(2000)))
    training, held = split(examples, 0.1)
    assert len(training) + len(held) == 2000
    assert 150 < len(held) < 250
    again, _ = split(list(reversed(examples[:1000])), 0.1)
    assert set(map(repr, again)) <= set(map(repr, training)), "wherever it stands, whatever else there is"
    more, _ = split(examples, 0.2)
    assert set(map(repr, more)) < set(map(repr, training)), "a larger share takes more, and none back"
    assert split(examples, 0.0) == (examples, [])
    assert split(examples, 1.0) == ([], examples)
