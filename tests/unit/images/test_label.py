"""Labelling: a teacher that is slow, busy, broken or lying, and the data set that comes of it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from slm_trainer import label as module
from slm_trainer.label import ATTEMPTS, ask_all
from slmkit.data import Example
from slmkit.run import Context, RunFailed
from slmops.contract import Credentials, Endpoint, Reason, Sampling
from tests.unit import virtualnet
from tests.unit.images.fakellm import FakeLLM, Reply, play

CANARY = "canary-k3y"


@pytest.fixture(autouse=True)
def virtual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=virtualnet.now))


def prompts(*texts: str) -> list[Example]:
    return [Example(({"role": "user", "content": text},), None) for text in texts]


def ask(
    llm: FakeLLM, *texts: str, context: Context | None = None, sampling: Sampling | None = None, **fields: Any
) -> list[str | None]:
    endpoint = Endpoint(url=f"{llm.url}/v1/", model="teacher", **fields)
    context = context or Context()
    return play(lambda: ask_all(endpoint, sampling or Sampling(), prompts(*texts), context, 7), llm)


def refused(act: Callable[[], object]) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        act()
    return failed.value


def one_by_one(*replies: Reply) -> Callable[[str, int], Reply]:
    """The first time the first reply, and so on; the last one from then on."""
    return lambda text, time: replies[min(time, len(replies)) - 1]


# --- single requests


def test_every_prompt_gets_its_own_answer_whatever_comes_first() -> None:
    delays = {"a": 5.0, "b": 1.0, "c": 3.0}
    llm = FakeLLM(lambda text, time: Reply(f"to {text}", delay=delays[text]))
    context = Context()
    assert ask(llm, "a", "b", "c", context=context) == ["to a", "to b", "to c"]
    assert (context.progress.stage, context.progress.step, context.progress.of) == ("Labelling", 3, 3)


def test_a_request_is_what_the_api_asks_for() -> None:
    llm = FakeLLM()
    sampling = Sampling(temperature=0.5, top_p=0.9, max_tokens=99, stop=("END",), presence_penalty=0.5)
    ask(llm, "a", sampling=sampling)
    ((_, body),) = llm.asked
    assert body == {
        "model": "teacher", "messages": [{"role": "user", "content": "a"}], "temperature": 0.5, "top_p": 0.9,
        "max_tokens": 99, "seed": 7, "stop": ["END"], "presence_penalty": 0.5, "frequency_penalty": 0.0,
    }  # fmt: skip


def test_options_that_are_not_wanted_are_not_sent() -> None:
    llm = FakeLLM()
    ask(llm, "a")
    ((_, body),) = llm.asked
    assert not {"stop", "presence_penalty", "frequency_penalty"} & set(body), (
        "some servers refuse what they do not know"
    )


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_at_a_time_than_wanted(concurrency: int) -> None:
    llm = FakeLLM(Reply(delay=1))
    ask(llm, *"abcdefg", concurrency=concurrency)
    assert llm.together == concurrency
    assert llm.times()[-1] == (6 // concurrency)


TROUBLE = {
    "busy": Reply(status=429), "not ready": Reply(status=503), "gateway": Reply(status=502), "late": Reply(status=504),
    "error": Reply(status=500), "no JSON": Reply(body=b"<html>"), "no choice": Reply(body=b'{"choices": []}'),
    "another shape": Reply(body=b"[]"), "a number": Reply(body=b"5"), "choices as object": Reply(body=b'{"choices": {}}'),
    "no message": Reply(body=b'{"choices": [{"message": null}]}'), "cut": Reply(cut=0), "nothing": Reply(body=b""),
    "no text": Reply(body=b'{"choices": [{"message": {"content": null}}]}'), "too slow": Reply(delay=61),
    "parts": Reply(body=b'{"choices": [{"message": {"content": [{"type": "text"}]}}]}'), "no UTF-8": Reply(body=b'"\xff'),
    "deep": Reply(body=b"[" * 100_000), "timed out there": Reply(status=408), "early": Reply(status=425),
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLE)
def test_what_passes_is_asked_again(trouble: str) -> None:
    llm = FakeLLM(one_by_one(TROUBLE[trouble], TROUBLE[trouble], Reply("at last")))
    assert ask(llm, "a") == ["at last"]
    first, second, third = llm.times()
    assert 0.25 <= second - first <= 60.5, "a minute for the answer, then a moment"
    assert 0.5 <= third - second <= 61, "and a longer one"


@pytest.mark.parametrize("trouble", TROUBLE)
def test_what_does_not_pass_costs_that_prompt_alone(trouble: str) -> None:
    llm = FakeLLM(lambda text, time: TROUBLE[trouble] if text == "bad" else Reply("fine"))
    assert ask(llm, "good", "bad", "better") == ["fine", None, "fine"]
    assert llm.counts["bad"] == ATTEMPTS


@pytest.mark.parametrize("status", [400, 403, 404, 405, 422, 451])
def test_a_definite_no_is_not_asked_again(status: int) -> None:
    llm = FakeLLM(lambda text, time: Reply(status=status) if text == "bad" else Reply("fine"))
    assert ask(llm, "bad", "good") == [None, "fine"]
    assert llm.counts["bad"] == 1


@pytest.mark.parametrize(
    ("said", "low", "high"), [("7", 7, 7), ("0", 0, 0), ("86400", 60, 60), ("soon", 0.25, 0.5), ("-1", 0.25, 0.5)]
)
def test_the_teachers_own_pause_is_kept_within_reason(said: str, low: float, high: float) -> None:
    llm = FakeLLM(one_by_one(Reply(status=429, headers={"Retry-After": said}), Reply("fine")))
    assert ask(llm, "a") == ["fine"]
    first, second = llm.times()
    assert low <= second - first <= high


def test_half_a_character_does_not_spoil_the_data_set() -> None:
    llm = FakeLLM(Reply(body=b'{"choices": [{"message": {"content": "cut \\ud83d"}}]}'))
    (answer,) = ask(llm, "a")
    assert answer == "cut ?"


# --- teachers that are not there


def test_a_teacher_that_starts_is_waited_for() -> None:
    llm = FakeLLM()
    llm.models = lambda time: web.Response(status=503 if time <= 20 else 200)
    context = Context()
    assert ask(llm, "a", context=context, startup_seconds=60) == ["yes"]
    assert llm.times()[0] >= 40, "two seconds each time"


def test_a_teacher_that_does_not_start_is_given_up() -> None:
    llm = FakeLLM()
    llm.models = lambda time: web.Response(status=503)
    failed = refused(lambda: ask(llm, "a", startup_seconds=60))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "503" in failed.message
    assert 30 <= llm.counts["/models"] <= 33
    assert llm.asked == []


@pytest.mark.parametrize("status", [200, 401, 404, 405, 500])
def test_any_answer_but_not_yet_is_a_start(status: int) -> None:
    llm = FakeLLM()
    llm.models = lambda time: web.Response(status=status)
    assert ask(llm, "a", startup_seconds=0) == ["yes"]
    assert llm.counts["/models"] == 1


def test_an_address_where_nobody_is_says_so() -> None:
    endpoint = Endpoint(url="http://127.0.0.1:9/v1", model="m", startup_seconds=10)
    failed = refused(lambda: play(lambda: ask_all(endpoint, Sampling(), prompts("a"), Context())))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "http://127.0.0.1:9/v1" in failed.message


def test_a_teacher_that_never_answers_is_given_up_before_all_prompts_were_tried() -> None:
    llm = FakeLLM(Reply(status=500))
    failed = refused(lambda: ask(llm, *map(str, range(1000)), concurrency=4))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "500" in failed.message
    assert len(llm.asked) < 100


def test_a_wrong_key_is_a_wrong_key() -> None:
    failed = refused(lambda: ask(FakeLLM(key="right"), *map(str, range(100))))
    assert failed.reason is Reason.SOURCE_UNAUTHORIZED
    assert "401" in failed.message


def test_the_key_opens_the_teacher(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{CANARY}\n")
    assert ask(FakeLLM(key=CANARY), "a", credentials=Credentials(path=str(tmp_path / "key"))) == ["yes"]


@pytest.mark.parametrize("content", [None, f"{CANARY}\n{CANARY}", f"{CANARY}\x00", "", f"{CANARY} ä"])
def test_a_key_that_cannot_be_sent_is_never_quoted(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "key").write_text(content)
    llm = FakeLLM()
    failed = refused(lambda: ask(llm, "a", credentials=Credentials(path=str(tmp_path / "key"))))
    assert failed.reason is Reason.SOURCE_UNAUTHORIZED
    assert CANARY not in failed.message
    assert llm.asked == []


@pytest.mark.parametrize("where", ["while the teacher starts", "while it thinks"])
def test_whoever_is_told_to_stop_does_not_wait_for_the_teacher(where: str) -> None:
    llm = FakeLLM(Reply(delay=59))
    if where == "while the teacher starts":
        llm.models = lambda time: web.Response(status=503)
    context = Context()
    ended: list[float] = []

    async def main() -> None:
        asyncio.get_running_loop().call_later(5, context.stopping.set)
        try:
            await ask_all(Endpoint(url=f"{llm.url}/v1", model="m"), Sampling(), prompts("a", "b"), context)
        finally:
            ended.append(virtualnet.now() - 1000)

    failed = refused(lambda: play(main, llm))
    assert failed.reason is Reason.TERMINATED
    assert ended[0] <= 7
