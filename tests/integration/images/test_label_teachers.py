"""Teachers that start late, are gone, or let nobody in; and what happens to whoever is told to stop meanwhile."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from slm_trainer.label.answers import Trouble
from slm_trainer.label.endpoint import DRAIN
from slmkit.run import Context
from slmops.contract import Credentials, Reason
from tests.unit.images.asker import Asker, refused
from tests.unit.images.fakellm import FakeLLM, Reply

CANARY = "canary-k3y"


# --- teachers that are not there


def test_a_teacher_that_starts_is_waited_for(ask: Asker) -> None:
    llm = FakeLLM()
    llm.models = lambda time: web.Response(status=503 if time <= 20 else 200)
    context = Context()
    assert ask(llm, "a", context=context, startup_seconds=60) == ["yes"]
    assert llm.times()[0] >= 40, "two seconds each time"


def test_a_teacher_that_does_not_start_is_given_up(ask: Asker) -> None:
    llm = FakeLLM()
    llm.models = lambda time: web.Response(status=503)
    failed = refused(lambda: ask(llm, "a", startup_seconds=60))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "503" in failed.message
    assert 30 <= llm.counts["/models"] <= 33
    assert llm.asked == []


@pytest.mark.parametrize("status", [200, 401, 404, 405, 500])
def test_any_answer_but_not_yet_is_a_start(ask: Asker, status: int) -> None:
    llm = FakeLLM()
    llm.models = lambda time: web.Response(status=status)
    assert ask(llm, "a", startup_seconds=0) == ["yes"]
    assert llm.counts["/models"] == 1


def test_what_a_teacher_says_of_its_models_is_not_read(ask: Asker) -> None:
    piece, said = bytes(1 << 16), list[int]()

    async def much() -> AsyncIterator[bytes]:
        while len(said) < 1024:
            said.append(1)
            yield piece

    llm = FakeLLM()
    llm.models = lambda time: web.Response(body=much())
    assert ask(llm, "a", startup_seconds=0) == ["yes"]
    assert len(said) < 512, "of 64 MiB no more than what lay in between"


def test_an_address_where_nobody_is_says_so(ask: Asker) -> None:
    nobody = FakeLLM()
    nobody.url = "http://127.0.0.1:9"
    failed = refused(lambda: ask(nobody, "a", url="http://127.0.0.1:9/v1", startup_seconds=10))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "http://127.0.0.1:9/v1" in failed.message


def test_a_teacher_that_never_answers_is_given_up_before_all_prompts_were_tried(ask: Asker) -> None:
    llm = FakeLLM(Reply(status=500))
    failed = refused(lambda: ask(llm, *map(str, range(1000)), concurrency=4))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "500" in failed.message
    assert len(llm.asked) < 100


@pytest.mark.parametrize("said", [b"context_length_exceeded", b"content_filter"])
def test_prompts_that_a_teacher_does_not_take_do_not_mean_that_it_is_not_there(ask: Asker, said: bytes) -> None:
    llm = FakeLLM(lambda text, time: Reply(status=400, body=said) if int(text) < 100 else Reply())
    assert ask(llm, *map(str, range(110)), concurrency=1)[100:] == ["yes"] * 10


def test_refusals_in_the_middle_do_not_mean_that_the_teacher_is_gone(ask: Asker) -> None:
    llm = FakeLLM(lambda text, time: Reply(status=422) if int(text) else Reply())
    assert ask(llm, *map(str, range(100)), concurrency=1) == ["yes"] + [Trouble.REFUSED] * 99


def test_a_wrong_key_is_a_wrong_key(ask: Asker) -> None:
    failed = refused(lambda: ask(FakeLLM(key="right"), *map(str, range(100))))
    assert failed.reason is Reason.SOURCE_UNAUTHORIZED
    assert "401" in failed.message


def test_the_key_opens_the_teacher(ask: Asker, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{CANARY}\n")
    assert ask(FakeLLM(key=CANARY), "a", credentials=Credentials(path=str(tmp_path / "key"))) == ["yes"]


@pytest.mark.parametrize("content", [None, f"{CANARY}\n{CANARY}", f"{CANARY}\x00", "", f"{CANARY} ä"])
def test_a_key_that_cannot_be_sent_is_never_quoted(ask: Asker, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    llm = FakeLLM()
    failed = refused(lambda: ask(llm, "a", credentials=Credentials(path=str(tmp_path / "key"))))
    assert failed.reason is Reason.SOURCE_UNAUTHORIZED
    assert CANARY not in failed.message
    assert llm.asked == []


# --- whoever is told to stop


def test_whoever_is_told_to_stop_does_not_wait_for_a_teacher_that_starts(ask: Asker) -> None:
    llm = FakeLLM()
    llm.models = lambda time: web.Response(status=503)
    failed, ended = ask.stopped_after(5, llm, "a", "b")
    assert failed.reason is Reason.TERMINATED
    assert ended <= 7


@pytest.mark.parametrize(("delay", "kept"), [(15.0, 2), (59.0, 0)])
def test_whoever_is_told_to_stop_lets_come_in_what_is_paid_for(ask: Asker, delay: float, kept: int) -> None:
    """As long as the kubelet has patience, and nothing new is asked."""
    llm = FakeLLM(Reply(delay=delay))
    failed, ended = ask.stopped_after(5, llm, *"abcd", concurrency=2)
    assert failed.reason is Reason.TERMINATED
    assert len(llm.asked) == 2
    assert len(ask.journal.read_text().splitlines()) == kept
    assert ended <= (delay + 1 if kept else 5 + DRAIN + 2)


def test_whoever_is_told_to_stop_does_not_wait_for_another_attempt(ask: Asker) -> None:
    llm = FakeLLM(Reply(status=429, headers={"Retry-After": "500"}))
    failed, ended = ask.stopped_after(5, llm, "a")
    assert failed.reason is Reason.TERMINATED
    assert ended <= 7


def test_whoever_is_told_to_stop_while_another_request_is_limited_asks_nothing_more(ask: Asker) -> None:
    limited = Reply(status=429, headers={"Retry-After": "500"})
    llm = FakeLLM(lambda text, time: limited if text == "a" else Reply(delay=1))
    failed, ended = ask.stopped_after(5, llm, *"abcd", concurrency=2)
    assert failed.reason is Reason.TERMINATED
    assert llm.prompts() == ["a", "b"]
    assert ended <= 7
