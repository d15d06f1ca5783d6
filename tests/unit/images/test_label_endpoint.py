"""A teacher behind an address that is slow, busy, broken or lying: what is asked again, what is given up, and when."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from slm_trainer.label.answers import Question, Trouble, question
from slm_trainer.label.client import asked_pause
from slm_trainer.label.endpoint import DRAIN, SPREAD, ask_all, backoff
from slm_trainer.label.journal import Journal
from slmkit.run import Context, RunFailed
from slmops.contract import Credentials, Endpoint, Reason, Sampling
from tests.unit import virtualnet
from tests.unit.images.fakellm import FakeLLM, Reply, play

CANARY = "canary-k3y"
RETRIES = Endpoint(url="", model="").retries


@pytest.fixture(autouse=True)
def journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a journal of its own."""
    monkeypatch.setattr(f"{__name__}.JOURNAL", tmp_path / "answers.jsonl")


JOURNAL = Path("set by the fixture")


def questions(*texts: str, sampling: Sampling | None = None) -> list[Question]:
    return [question("t", ({"role": "user", "content": text},), sampling or Sampling(), 7) for text in texts]


def ask(
    llm: FakeLLM, *texts: str, context: Context | None = None, sampling: Sampling | None = None, **fields: Any
) -> list[str]:
    """The answers; in their place the reason why there is none."""
    endpoint = Endpoint.model_validate({"url": f"{llm.url}/v1/", "model": "teacher"} | fields)
    sampling, context = sampling or Sampling(), context or Context()
    asked = questions(*texts, sampling=sampling)
    with Journal(JOURNAL) as journal:
        troubles = play(lambda: ask_all(endpoint, sampling, asked, journal, context), llm)
        found = [journal.get(q.key) for q in asked]
    return [troubles[q.key] if answer is None else answer.text for q, answer in zip(asked, found, strict=True)]


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
    sampling = Sampling(
        temperature=0.5, top_p=0.9, max_tokens=99, stop=("END",), presence_penalty=0.5, frequency_penalty=-1
    )
    ask(llm, "a", sampling=sampling)
    ((_, body),) = llm.asked
    assert body == {
        "model": "teacher", "messages": [{"role": "user", "content": "a"}], "temperature": 0.5, "top_p": 0.9,
        "max_tokens": 99, "seed": 7, "stop": ["END"], "presence_penalty": 0.5, "frequency_penalty": -1.0,
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
    "too much at a time": Reply(status=413), "half an answer": Reply("an answer that breaks off", cut=60),
}  # fmt: skip
REASONS = {
    "busy": Trouble.RATE_LIMITED, "too much at a time": Trouble.RATE_LIMITED, "no choice": Trouble.NO_CHOICES,
    "cut": Trouble.DISCONNECTED, "half an answer": Trouble.DISCONNECTED, "too slow": Trouble.TIMED_OUT,
} | dict.fromkeys(("not ready", "gateway", "late", "error", "timed out there", "early"), Trouble.SERVER_ERROR)  # fmt: skip


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
    assert ask(llm, "good", "bad", "better") == ["fine", REASONS.get(trouble, Trouble.BAD_ANSWER), "fine"]
    assert llm.counts["bad"] == RETRIES + 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 422, 451])
def test_a_definite_no_is_not_asked_again(status: int) -> None:
    llm = FakeLLM(lambda text, time: Reply(status=status) if text == "bad" else Reply("fine"))
    assert ask(llm, "bad", "good") == [Trouble.REFUSED, "fine"]
    assert llm.counts["bad"] == 1


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        (b'{"error": {"code": "context_length_exceeded"}}', Trouble.CONTEXT_TOO_LONG),
        (b"This model's maximum context length is 4096 tokens. However, you requested 5000.", Trouble.CONTEXT_TOO_LONG),
        (b'{"error": {"code": "content_filter", "innererror": {}}}', Trouble.FILTERED),
        (b'{"error": {"message": "unknown model"}}', Trouble.REFUSED),
    ],
)
def test_a_no_is_counted_by_what_it_is_about(body: bytes, trouble: Trouble) -> None:
    llm = FakeLLM(lambda text, time: Reply(status=400, body=body) if text == "bad" else Reply("fine"))
    assert ask(llm, "bad", "good") == [trouble, "fine"]


@pytest.mark.parametrize(
    ("said", "wanted"), [("7", 7), ("0", 0), ("86400", 600), ("soon", 0), ("-1", 0), ("9" * 400, 600), ("1.5", 0)]
)
def test_the_teachers_own_pause_is_kept_within_reason(said: str, wanted: float) -> None:
    llm = FakeLLM(one_by_one(Reply(status=429, headers={"Retry-After": said}), Reply("fine")))
    assert ask(llm, "a") == ["fine"]
    first, second = llm.times()
    assert wanted + 0.25 <= second - first <= wanted + 0.5, "and our jitter on top"


@pytest.mark.parametrize(("told", "wanted"), [(90, 90), (-90, 0), (0, 0)])
def test_a_date_is_compared_with_the_clock_of_the_server_that_set_it(told: int, wanted: int) -> None:
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


def test_a_limit_holds_back_all_requests() -> None:
    """It is the account's: who asks before it is over only makes it longer."""
    limited = Reply(status=429, headers={"Retry-After": "30"})
    llm = FakeLLM(lambda text, time: limited if (text, time) == ("a", 1) else Reply("fine", delay=1))
    assert ask(llm, *"abcd", concurrency=2) == ["fine"] * 4
    assert llm.prompts()[:2] == ["a", "b"]
    assert min(llm.times()[2:]) >= 30


def test_a_limit_that_grows_while_others_wait_is_kept_to_the_end() -> None:
    """The second pause is told 20 seconds into the first: whoever waited for the first goes on waiting."""
    replies = {"a": Reply(status=429, headers={"Retry-After": "30"}),
               "b": Reply(status=429, headers={"Retry-After": "60"}, delay=20), "c": Reply(delay=1)}  # fmt: skip
    llm = FakeLLM(lambda text, time: replies[text] if text in replies and time == 1 else Reply("fine"))
    assert ask(llm, *"abcdefgh", concurrency=3) == ["fine", "fine", "yes", *["fine"] * 5]
    assert llm.prompts()[:3] == ["a", "b", "c"]
    assert llm.times()[:3] == [0, 0, 0]
    assert min(llm.times()[3:]) >= 80


@pytest.mark.parametrize("told", [1, 32])
def test_those_who_waited_together_do_not_come_together(told: int) -> None:
    """Whoever was told to wait, and whoever only heard of it."""

    def choose(text: str, time: int) -> Reply:
        limited = int(text) < told and time == 1
        return Reply(status=429, headers={"Retry-After": "30"}) if limited else Reply("fine", delay=1)

    llm = FakeLLM(choose)
    assert ask(llm, *map(str, range(64)), concurrency=32) == ["fine"] * 64
    again = sorted(time for time in llm.times() if time > 20)[:32]
    assert again[0] >= 30
    assert 0.5 < again[-1] - again[0] <= 32 * SPREAD + 0.5


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_as_many_attempts_as_wanted(retries: int) -> None:
    llm = FakeLLM(lambda text, time: Reply(status=500) if text == "bad" else Reply("fine"))
    assert ask(llm, "good", "bad", retries=retries) == ["fine", Trouble.SERVER_ERROR]
    assert llm.counts["bad"] == retries + 1


def test_pauses_double_and_have_an_end() -> None:
    for attempt in range(12):
        assert min(2.0**attempt, 60) / 4 <= backoff(attempt) <= min(2.0**attempt, 60) / 2


def test_a_teacher_that_trickles_is_not_waited_for_longer_than_a_slow_one() -> None:
    """The timeout is of the whole request: a byte now and then does not buy more of it."""

    class Trickle(FakeLLM):
        async def _say(self, request: web.Request, reply: Reply, asked: dict[str, Any]) -> web.StreamResponse:
            answer = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
            await answer.prepare(request)
            for _ in range(1000):
                await answer.write(b" ")
                await asyncio.sleep(1)
            return answer

    llm = Trickle()
    with pytest.raises(RunFailed) as failed:
        ask(llm, "a", timeout_seconds=5, retries=1)
    assert "no answer within 5 s" in failed.value.message
    assert llm.times()[1] <= 5.6


def test_an_answer_beyond_all_bounds_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_trainer.label.client.LARGEST", 1000)
    llm = FakeLLM(lambda text, time: Reply("w " * 1000) if text == "long" else Reply("fine"))
    assert ask(llm, "long", "good") == [Trouble.BAD_ANSWER, "fine"]
    assert llm.counts["long"] == 1


def test_azure_gets_its_version_and_its_own_header(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(CANARY)
    llm = FakeLLM()
    endpoint = {"azure_api_version": "2024-10-21", "credentials": {"path": str(tmp_path / "key")}}
    assert ask(llm, "a", **endpoint) == ["yes"]
    (headers,) = llm.headers
    assert (headers["api-key"], headers["query"]) == (CANARY, "api-version=2024-10-21")
    assert "Authorization" not in headers


# --- what an answer took


def answer_of(llm: FakeLLM, text: str) -> dict[str, Any]:
    ask(llm, text)
    return dict(json.loads(JOURNAL.read_text()))


def test_tokens_are_those_that_the_teacher_counted() -> None:
    found = answer_of(FakeLLM(Reply("a b c", usage={"prompt_tokens": 11, "completion_tokens": 22})), "x")
    assert (found["prompt_tokens"], found["completion_tokens"], found["estimated"]) == (11, 22, False)


@pytest.mark.parametrize(
    "usage", [None, {}, [], "many", {"prompt_tokens": -1, "completion_tokens": True}, {"prompt_tokens": 1e300}]
)
def test_without_a_count_there_is_an_estimate_that_says_so(usage: object) -> None:
    found = answer_of(FakeLLM(Reply("12345678 0", usage=usage)), "abcde")
    assert (found["prompt_tokens"], found["completion_tokens"], found["estimated"]) == (2, 3, True)


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", None])
def test_how_an_answer_ended_is_kept(finish: str | None) -> None:
    assert answer_of(FakeLLM(Reply(finish=finish)), "x")["finish"] == (finish or "stop")


# --- answers without words


def said(content: str | None, finish: str, **more: object) -> Reply:
    """An answer as the API's own servers give it."""
    choice = {"message": {"role": "assistant", "content": content} | more, "finish_reason": finish}
    usage = {"prompt_tokens": 7, "completion_tokens": 100}
    return Reply(body=json.dumps({"choices": [choice], "usage": usage}).encode())


@pytest.mark.parametrize(
    ("reply", "trouble"),
    [
        (said(None, "stop", refusal="I cannot help with that."), Trouble.FILTERED),
        (said("", "stop", refusal="I cannot help with that."), Trouble.FILTERED),
        (said(None, "content_filter"), Trouble.FILTERED),
        (said(None, "length", reasoning_content="Let me think"), Trouble.CUT_SHORT),
        (Reply(body=b'{"choices": [{"message": {}, "finish_reason": "length"}]}'), Trouble.CUT_SHORT),
    ],
)
def test_an_answer_without_words_that_says_why_is_paid_for_once(reply: Reply, trouble: Trouble) -> None:
    first, second = FakeLLM(reply), FakeLLM()
    ask(first, "a")
    ask(second, "a")
    assert (first.counts["a"], second.counts["a"]) == (1, 0), "neither another time nor in another attempt"
    with Journal(JOURNAL) as journal:
        answer = journal.get(questions("a")[0].key)
    assert answer is not None
    assert answer.trouble is trouble


@pytest.mark.parametrize("more", [{}, {"refusal": None}, {"refusal": ""}, {"refusal": [1]}])
def test_an_answer_without_words_and_reason_is_asked_for_again_and_not_for_ever(more: dict[str, object]) -> None:
    llm = FakeLLM(lambda text, time: said(None, "stop", **more) if text == "bad" else Reply("fine"))
    assert ask(llm, "good", "bad", retries=2) == ["fine", Trouble.BAD_ANSWER]
    assert llm.counts["bad"] == 3


def test_words_beside_a_refusal_are_the_answer() -> None:
    assert ask(FakeLLM(said("yes", "stop", refusal="no")), "a") == ["yes"]


# --- what is known already


def test_what_was_answered_is_not_asked_again() -> None:
    first = FakeLLM(lambda text, time: Reply(status=400) if text == "c" else Reply(f"to {text}"))
    assert ask(first, *"abc") == ["to a", "to b", Trouble.REFUSED]
    second = FakeLLM(Reply("late"))
    context = Context()
    assert ask(second, *"abcd", context=context) == ["to a", "to b", "late", "late"]
    assert sorted(second.prompts()) == ["c", "d"]
    assert (context.progress.step, context.progress.of) == (4, 4)


def test_where_all_is_known_nothing_is_asked() -> None:
    ask(FakeLLM(), *"ab")
    again = FakeLLM(Reply(status=500))
    assert ask(again, *"ab") == ["yes", "yes"]
    assert again.asked == []


def test_a_teacher_that_dies_in_the_middle_is_given_up_and_its_answers_stay() -> None:
    """Another attempt of the Job goes on from there; without an end it would throw the rest of the prompts away."""
    llm = FakeLLM(lambda text, time: Reply() if int(text) < 20 else Reply(status=502))
    failed = refused(lambda: ask(llm, *map(str, range(1000)), concurrency=4))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "40 requests in a row" in failed.message
    assert len(JOURNAL.read_text().splitlines()) == 20


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
    nobody = FakeLLM()
    nobody.url = "http://127.0.0.1:9"
    failed = refused(lambda: ask(nobody, "a", url="http://127.0.0.1:9/v1", startup_seconds=10))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "http://127.0.0.1:9/v1" in failed.message


def test_a_teacher_that_never_answers_is_given_up_before_all_prompts_were_tried() -> None:
    llm = FakeLLM(Reply(status=500))
    failed = refused(lambda: ask(llm, *map(str, range(1000)), concurrency=4))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "500" in failed.message
    assert len(llm.asked) < 100


@pytest.mark.parametrize("said", [b"context_length_exceeded", b"content_filter"])
def test_prompts_that_a_teacher_does_not_take_do_not_mean_that_it_is_not_there(said: bytes) -> None:
    llm = FakeLLM(lambda text, time: Reply(status=400, body=said) if int(text) < 100 else Reply())
    assert ask(llm, *map(str, range(110)), concurrency=1)[100:] == ["yes"] * 10


def test_refusals_in_the_middle_do_not_mean_that_the_teacher_is_gone() -> None:
    llm = FakeLLM(lambda text, time: Reply(status=422) if int(text) else Reply())
    assert ask(llm, *map(str, range(100)), concurrency=1) == ["yes"] + [Trouble.REFUSED] * 99


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


def test_whoever_is_told_to_stop_does_not_wait_for_a_teacher_that_starts() -> None:
    llm = FakeLLM()
    llm.models = lambda time: web.Response(status=503)
    failed, ended = stopped_after(5, llm, "a", "b")
    assert failed.reason is Reason.TERMINATED
    assert ended <= 7


@pytest.mark.parametrize(("delay", "kept"), [(15.0, 2), (59.0, 0)])
def test_whoever_is_told_to_stop_lets_come_in_what_is_paid_for(delay: float, kept: int) -> None:
    """As long as the kubelet has patience, and nothing new is asked."""
    llm = FakeLLM(Reply(delay=delay))
    failed, ended = stopped_after(5, llm, *"abcd", concurrency=2)
    assert failed.reason is Reason.TERMINATED
    assert len(llm.asked) == 2
    assert len(JOURNAL.read_text().splitlines()) == kept
    assert ended <= (delay + 1 if kept else 5 + DRAIN + 2)


def test_whoever_is_told_to_stop_does_not_wait_for_another_attempt() -> None:
    llm = FakeLLM(Reply(status=429, headers={"Retry-After": "500"}))
    failed, ended = stopped_after(5, llm, "a")
    assert failed.reason is Reason.TERMINATED
    assert ended <= 7


def test_whoever_is_told_to_stop_while_another_request_is_limited_asks_nothing_more() -> None:
    limited = Reply(status=429, headers={"Retry-After": "500"})
    llm = FakeLLM(lambda text, time: limited if text == "a" else Reply(delay=1))
    failed, ended = stopped_after(5, llm, *"abcd", concurrency=2)
    assert failed.reason is Reason.TERMINATED
    assert llm.prompts() == ["a", "b"]
    assert ended <= 7


def stopped_after(seconds: float, llm: FakeLLM, *texts: str, **fields: Any) -> tuple[RunFailed, float]:
    """How a run ends that is told to stop, and when."""
    context, ended = Context(), []

    async def main() -> None:
        asyncio.get_running_loop().call_later(seconds, context.stopping.set)
        endpoint = Endpoint.model_validate({"url": f"{llm.url}/v1", "model": "m"} | fields)
        try:
            with Journal(JOURNAL) as journal:
                await ask_all(endpoint, Sampling(), questions(*texts), journal, context)
        finally:
            ended.append(virtualnet.now() - 1000)

    return refused(lambda: play(main, llm)), ended[0]
