"""A teacher that wants a pause: how long it is, by whose clock, and who keeps it."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_trainer.label.client import asked_pause
from slm_trainer.label.endpoint import SPREAD, backoff
from tests.unit.images.asker import Asker, one_by_one
from tests.unit.images.fakellm import FakeLLM, Reply


@pytest.mark.parametrize(
    ("said", "wanted"), [("7", 7), ("0", 0), ("86400", 600), ("soon", 0), ("-1", 0), ("9" * 400, 600), ("1.5", 0)]
)
def test_the_teachers_own_pause_is_kept_within_reason(ask: Asker, said: str, wanted: float) -> None:
    llm = FakeLLM(one_by_one(Reply(status=429, headers={"Retry-After": said}), Reply("fine")))
    assert ask(llm, "a") == ["fine"]
    first, second = llm.times()
    assert wanted + 0.25 <= second - first <= wanted + 0.5, "and our jitter on top"


@pytest.mark.parametrize(("told", "wanted"), [(90, 90), (-90, 0), (0, 0)])
def test_a_date_is_compared_with_the_clock_of_the_server_that_set_it(ask: Asker, told: int, wanted: int) -> None:
    clock = datetime(2031, 5, 4, 10, 0, tzinfo=UTC)
    headers = {"Retry-After": format_datetime(clock + timedelta(seconds=told), usegmt=True),
               "Date": format_datetime(clock, usegmt=True)}  # fmt: skip
    llm = FakeLLM(one_by_one(Reply(status=503, headers=headers), Reply("fine")))
    assert ask(llm, "a") == ["fine"]
    first, second = llm.times()
    assert wanted + 0.25 <= second - first <= wanted + 0.5


def test_a_date_without_the_servers_clock_is_compared_with_ours() -> None:
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    assert asked_pause(httpx.Headers({"Retry-After": "Sun, 01 Mar 2026 12:00:30 GMT"}), now) == 30
    assert asked_pause(httpx.Headers({"Retry-After": "Sun, 01 Mar 2026 12:00:30"}), now) == 30
    assert asked_pause(httpx.Headers(), now) == 0


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_no_header_breaks_the_pause(said: str) -> None:
    headers = httpx.Headers([(b"Retry-After", said.encode("latin-1"))])
    assert asked_pause(headers, datetime(2026, 3, 1, tzinfo=UTC)) >= 0


def test_a_limit_holds_back_all_requests(ask: Asker) -> None:
    """It is the account's: who asks before it is over only makes it longer."""
    limited = Reply(status=429, headers={"Retry-After": "30"})
    llm = FakeLLM(lambda text, time: limited if (text, time) == ("a", 1) else Reply("fine", delay=1))
    assert ask(llm, *"abcd", concurrency=2) == ["fine"] * 4
    assert llm.prompts()[:2] == ["a", "b"]
    assert min(llm.times()[2:]) >= 30


def test_a_limit_that_grows_while_others_wait_is_kept_to_the_end(ask: Asker) -> None:
    """The second pause is told 20 seconds into the first: whoever waited for the first goes on waiting."""
    replies = {"a": Reply(status=429, headers={"Retry-After": "30"}),
               "b": Reply(status=429, headers={"Retry-After": "60"}, delay=20), "c": Reply(delay=1)}  # fmt: skip
    llm = FakeLLM(lambda text, time: replies[text] if text in replies and time == 1 else Reply("fine"))
    assert ask(llm, *"abcdefgh", concurrency=3) == ["fine", "fine", "yes", *["fine"] * 5]
    assert llm.prompts()[:3] == ["a", "b", "c"]
    assert llm.times()[:3] == [0, 0, 0]
    assert min(llm.times()[3:]) >= 80


@pytest.mark.parametrize("told", [1, 32])
def test_those_who_waited_together_do_not_come_together(ask: Asker, told: int) -> None:
    """Whoever was told to wait, and whoever only heard of it."""

    def choose(text: str, time: int) -> Reply:
        limited = int(text) < told and time == 1
        return Reply(status=429, headers={"Retry-After": "30"}) if limited else Reply("fine", delay=1)

    llm = FakeLLM(choose)
    assert ask(llm, *map(str, range(64)), concurrency=32) == ["fine"] * 64
    again = sorted(time for time in llm.times() if time > 20)[:32]
    assert again[0] >= 30
    assert 0.5 < again[-1] - again[0] <= 32 * SPREAD + 0.5


def test_pauses_double_and_have_an_end() -> None:
    for attempt in range(12):
        assert min(2.0**attempt, 60) / 4 <= backoff(attempt) <= min(2.0**attempt, 60) / 2
