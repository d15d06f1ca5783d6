"""The demo's task: the same seed gives the same data, and what a model is measured by was never in its training."""

import itertools
import json
import random
import re

import pytest

from demo.task import BASE_DOMAINS, IRRIGATION, Domain, Example, examples, is_held_out

ALL = (*BASE_DOMAINS, IRRIGATION)
MANY = 3000


def draw(domains: tuple[Domain, ...], seed: int, held_out: bool, count: int = MANY) -> list[Example]:
    return list(itertools.islice(examples(domains, seed, held_out), count))


@pytest.fixture(scope="module")
def training() -> list[Example]:
    return draw(ALL, 1, held_out=False)


@pytest.fixture(scope="module")
def held_out() -> list[Example]:
    return draw(ALL, 2, held_out=True)


def test_a_seed_gives_the_same_examples_each_time(training: list[Example]) -> None:
    assert draw(ALL, 1, held_out=False, count=500) == training[:500]
    assert draw(ALL, 3, held_out=False, count=500) != training[:500]


def test_a_longer_draw_begins_like_a_shorter_one(training: list[Example]) -> None:
    assert draw(ALL, 1, held_out=False, count=10) == training[:10]


def test_the_state_of_the_worlds_randomness_does_not_matter(training: list[Example]) -> None:
    random.seed(5)
    random.random()
    assert draw(ALL, 1, held_out=False, count=100) == training[:100]


def test_no_answer_that_is_measured_was_trained_on_whatever_the_seeds(
    training: list[Example], held_out: list[Example]
) -> None:
    trained = {e.completion for seed in range(3) for e in draw(ALL, seed, held_out=False, count=1500)}
    measured = {e.completion for seed in range(3) for e in draw(ALL, seed, held_out=True, count=1500)}
    assert not trained & measured
    assert not {e.prompt for e in training} & {e.prompt for e in held_out}
    assert all(is_held_out(completion) for completion in measured)


def test_what_is_held_out_is_the_same_for_ever_and_everywhere(training: list[Example]) -> None:
    assert [number for number in range(60) if is_held_out(str(number))] == [15, 22, 53, 57]
    assert training[0].prompt == "hey farm, between 02:16 and 03:31 heat the feed room to 29 degrees"


def test_about_one_combination_in_ten_is_held_out() -> None:
    share = sum(is_held_out(str(number)) for number in range(MANY)) / MANY
    assert 0.08 < share < 0.12


def test_no_combination_is_there_twice(training: list[Example], held_out: list[Example]) -> None:
    assert len({e.completion for e in training}) == len(training)
    assert len({e.completion for e in held_out}) == len(held_out)


@pytest.mark.parametrize("domain", ALL, ids=lambda domain: domain.function)
def test_an_answer_is_a_call_of_the_function_that_was_asked_for(domain: Domain) -> None:
    for example in draw((domain,), 4, held_out=False, count=300):
        call = json.loads(example.completion)
        assert set(call) == {"name", "arguments"}
        assert call["name"] == domain.function
        assert list(call["arguments"]) == list(domain.slots), "in the domain's order: answers are compared by letter"
        assert json.dumps(call, separators=(",", ":")) == example.completion, "in one spelling"


def spoken(value: object) -> str:
    return {"irrigate": "irrigation", "feed": "feeding", "set_light": "light", "set_climate": "heating"}.get(
        str(value), str(value)
    )


def test_a_command_says_all_that_the_answer_needs(training: list[Example], held_out: list[Example]) -> None:
    for example in training + held_out:
        call = json.loads(example.completion)
        assert all(spoken(value) in example.prompt for value in call["arguments"].values())
        assert "{" not in example.prompt, "every slot is filled"


def test_a_command_has_one_right_answer() -> None:
    answers: dict[str, set[str]] = {}
    for seed in range(4):
        for example in draw(ALL, seed, held_out=False, count=4000):
            answers.setdefault(example.prompt, set()).add(example.completion)
    assert [prompt for prompt, found in answers.items() if len(found) > 1] == []


@pytest.mark.parametrize("domain", ALL, ids=lambda domain: domain.function)
def test_every_wording_of_a_domain_occurs(domain: Domain) -> None:
    drawn = draw((domain,), 5, held_out=False, count=300)
    for wording in domain.wordings:
        words = max((part.partition("}")[2] or part for part in wording.split("{")), key=len).strip()
        assert any(words in example.prompt for example in drawn), wording


@pytest.mark.parametrize("domain", ALL, ids=lambda domain: domain.function)
def test_held_out_combinations_are_new_their_parts_are_not(domain: Domain) -> None:
    def parts(drawn: list[Example]) -> set[str]:
        return {part for e in drawn for part in re.findall(r"[a-z_]+|[0-9]+", f"{e.prompt} {e.completion}")}

    assert parts(draw((domain,), 5, held_out=True, count=300)) <= parts(draw((domain,), 5, held_out=False))


def test_a_base_model_has_read_every_word_of_the_domain_that_it_will_learn_later() -> None:
    def words(domains: tuple[Domain, ...]) -> set[str]:
        return {
            word
            for e in draw(domains, 6, held_out=False)
            for word in re.findall(r"[a-z_]+", f"{e.prompt} {e.completion}")
        }

    assert words((IRRIGATION,)) <= words(BASE_DOMAINS)
    calls = {json.loads(e.completion)["name"] for e in draw(BASE_DOMAINS, 6, held_out=False)}
    assert IRRIGATION.function not in calls, "but never its function called"
