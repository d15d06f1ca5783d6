"""What a benchmark makes of the answers of two servers: how they compare, how far one is from itself, what spoiled it."""

from slm_bench.asking import Answer
from slm_bench.seen import Seen, figures, noise, paired
from slmkit.data import Example

SPEED, FIRST, WHOLE, RIGHT = "TokensPerSecond", "TimeToFirstToken", "RequestLatency", "ExactMatch"


def answer(
    seconds: float, *, first: float = 0.1, tokens: int = 10, text: str = "a", error: str | None = None
) -> Answer:
    return Answer(first_token=first, seconds=seconds, tokens=tokens, text=text, error=error)


def seen(*rounds: list[Answer], right: str | None = None) -> Seen:
    """A server that gave these answers."""
    example = Example(prompt=({"role": "user", "content": "p"},), completion=right)
    return Seen([[(example, each) for each in some] for some in rounds])


FAILED = answer(0.0, error="status 500")
LONG = [answer(s, first=s / 4) for s in (0.3, 7.0, 1.0, 2.5)]
LONGER = [answer(s * 1.25, first=s / 2) for s in (0.3, 7.0, 1.0, 2.5)]


def test_a_server_that_is_always_slower_by_the_same_is_so_for_certain() -> None:
    found = paired(seen(LONGER, LONGER), seen(LONG, LONG))
    assert {name: (p.ratio, p.low, p.high, p.pairs) for name, p in found.items()} == {
        SPEED: (0.8, 0.8, 0.8, 8), FIRST: (2.0, 2.0, 2.0, 8), WHOLE: (1.25, 1.25, 1.25, 8),
    }  # fmt: skip
    apart = figures(seen(LONG, LONG)).intervals[WHOLE]
    assert apart[0] < 1 < 2 < apart[1], "its answers are of any length"


def test_only_answers_of_both_are_a_pair() -> None:
    ours, theirs = [answer(2.0), FAILED, answer(2.0), answer(2.0)], [answer(1.0), answer(1.0), FAILED, answer(1.0)]
    found = paired(seen(ours), seen(theirs))
    assert {(name, p.ratio, p.pairs) for name, p in found.items()} == {(SPEED, 0.5, 2), (FIRST, 1, 2), (WHOLE, 2, 2)}
    assert paired(seen([FAILED] * 4), seen(theirs)) == {}
    assert paired(seen([*ours[:1], FAILED]), seen(theirs[:2])) == {}, "one pair has no interval"


def test_an_answer_without_a_token_has_no_speed_to_compare() -> None:
    found = paired(seen([answer(2.0, tokens=0), *LONG]), seen([answer(1.0), *LONG]))
    assert (found[SPEED].pairs, found[SPEED].ratio, found[WHOLE].pairs) == (4, 1.0, 5)


def test_right_answers_are_compared_where_they_are_known_and_an_error_is_wrong() -> None:
    good, bad = answer(1.0, text=" yes\n"), answer(1.0, text="no")
    found = paired(seen([good, bad, FAILED, good], right="yes"), seen([good] * 4, right="yes"))[RIGHT]
    assert (found.ratio, found.pairs) == (0.5, 4)
    assert 0 <= found.low < 0.5 < found.high <= 1
    assert RIGHT not in paired(seen([good] * 4), seen([good] * 4))


def test_each_server_has_intervals_of_what_was_measured() -> None:
    found = figures(seen(LONG, LONG[::-1], right="a"))
    assert set(found.intervals) == {SPEED, FIRST, WHOLE, RIGHT}
    assert found.intervals[RIGHT] == (0.6756, 1.0)
    low, high = found.intervals[WHOLE]
    assert low <= found.rounds[0].request_seconds <= high
    assert figures(seen([answer(1.0)])).intervals == {}, "one request has none"
    assert figures(seen([FAILED] * 5)).intervals == {}


def test_noise_is_the_furthest_that_a_server_may_be_from_itself() -> None:
    same = [[(each, each) for each in LONG]] * 3
    assert noise(same) == {SPEED: 0, FIRST: 0, WHOLE: 0}
    slower = [[(b, a) for a, b in zip(LONG, LONGER, strict=True)]] * 3
    assert noise(slower) == {SPEED: 0.25, FIRST: 1.0, WHOLE: 0.25}
    assert noise([[(b, a) for a, b in each] for each in slower]) == noise(slower), "whichever was first"
    assert noise([[(FAILED, answer(1.0))] * 4]) == {}


def test_noise_grows_with_what_differs() -> None:
    calm, rough = (
        noise([[(answer(1.0 + by * n), answer(1.0 - by * n)) for n in (-1, 1, 2, -2, 0)]] * 3)[WHOLE]
        for by in (0.01, 0.1)
    )
    assert 0 < calm < 0.05 < rough
