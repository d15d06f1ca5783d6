"""A teacher behind an address that is slow, broken or lying: what is asked again, what is given up, what is kept."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from slm_trainer.label.answers import Trouble
from slm_trainer.label.journal import Journal
from slmkit.run import Context, RunFailed
from slmops.contract import Endpoint, Reason, Sampling
from tests.unit.images.asker import Asker, one_by_one, questions, refused
from tests.unit.images.fakellm import FakeLLM, Reply

CANARY = "canary-k3y"
RETRIES = Endpoint(url="", model="").retries


# --- single requests


def test_every_prompt_gets_its_own_answer_whatever_comes_first(ask: Asker) -> None:
    delays = {"a": 5.0, "b": 1.0, "c": 3.0}
    llm = FakeLLM(lambda text, time: Reply(f"to {text}", delay=delays[text]))
    context = Context()
    assert ask(llm, "a", "b", "c", context=context) == ["to a", "to b", "to c"]
    assert (context.progress.stage, context.progress.step, context.progress.of) == ("Labelling", 3, 3)


def test_a_request_is_what_the_api_asks_for(ask: Asker) -> None:
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


def test_options_that_are_not_wanted_are_not_sent(ask: Asker) -> None:
    llm = FakeLLM()
    ask(llm, "a")
    ((_, body),) = llm.asked
    assert not {"stop", "presence_penalty", "frequency_penalty"} & set(body), (
        "some servers refuse what they do not know"
    )


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_at_a_time_than_wanted(ask: Asker, concurrency: int) -> None:
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
def test_what_passes_is_asked_again(ask: Asker, trouble: str) -> None:
    llm = FakeLLM(one_by_one(TROUBLE[trouble], TROUBLE[trouble], Reply("at last")))
    assert ask(llm, "a") == ["at last"]
    first, second, third = llm.times()
    assert 0.25 <= second - first <= 60.5, "a minute for the answer, then a moment"
    assert 0.5 <= third - second <= 61, "and a longer one"


@pytest.mark.parametrize("trouble", TROUBLE)
def test_what_does_not_pass_costs_that_prompt_alone(ask: Asker, trouble: str) -> None:
    llm = FakeLLM(lambda text, time: TROUBLE[trouble] if text == "bad" else Reply("fine"))
    assert ask(llm, "good", "bad", "better") == ["fine", REASONS.get(trouble, Trouble.BAD_ANSWER), "fine"]
    assert llm.counts["bad"] == RETRIES + 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 422, 451])
def test_a_definite_no_is_not_asked_again(ask: Asker, status: int) -> None:
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
def test_a_no_is_counted_by_what_it_is_about(ask: Asker, body: bytes, trouble: Trouble) -> None:
    llm = FakeLLM(lambda text, time: Reply(status=400, body=body) if text == "bad" else Reply("fine"))
    assert ask(llm, "bad", "good") == [trouble, "fine"]


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_as_many_attempts_as_wanted(ask: Asker, retries: int) -> None:
    llm = FakeLLM(lambda text, time: Reply(status=500) if text == "bad" else Reply("fine"))
    assert ask(llm, "good", "bad", retries=retries) == ["fine", Trouble.SERVER_ERROR]
    assert llm.counts["bad"] == retries + 1


def test_a_teacher_that_trickles_is_not_waited_for_longer_than_a_slow_one(ask: Asker) -> None:
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


def test_an_answer_beyond_all_bounds_is_not_read_to_its_end(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_trainer.label.client.LARGEST", 1000)
    llm = FakeLLM(lambda text, time: Reply("w " * 1000) if text == "long" else Reply("fine"))
    assert ask(llm, "long", "good") == [Trouble.BAD_ANSWER, "fine"]
    assert llm.counts["long"] == 1


def test_azure_gets_its_version_and_its_own_header(ask: Asker, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(CANARY)
    llm = FakeLLM()
    endpoint = {"azure_api_version": "2024-10-21", "credentials": {"path": str(tmp_path / "key")}}
    assert ask(llm, "a", **endpoint) == ["yes"]
    (headers,) = llm.headers
    assert (headers["api-key"], headers["query"]) == (CANARY, "api-version=2024-10-21")
    assert "Authorization" not in headers


# --- what an answer took


def test_tokens_are_those_that_the_teacher_counted(ask: Asker) -> None:
    found = ask.answer(FakeLLM(Reply("a b c", usage={"prompt_tokens": 11, "completion_tokens": 22})), "x")
    assert (found["prompt_tokens"], found["completion_tokens"], found["estimated"]) == (11, 22, False)


@pytest.mark.parametrize(
    "usage", [None, {}, [], "many", {"prompt_tokens": -1, "completion_tokens": True}, {"prompt_tokens": 1e300}]
)
def test_without_a_count_there_is_an_estimate_that_says_so(ask: Asker, usage: object) -> None:
    found = ask.answer(FakeLLM(Reply("12345678 0", usage=usage)), "abcde")
    assert (found["prompt_tokens"], found["completion_tokens"], found["estimated"]) == (2, 3, True)


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", None])
def test_how_an_answer_ended_is_kept(ask: Asker, finish: str | None) -> None:
    assert ask.answer(FakeLLM(Reply(finish=finish)), "x")["finish"] == (finish or "stop")


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
def test_an_answer_without_words_that_says_why_is_paid_for_once(ask: Asker, reply: Reply, trouble: Trouble) -> None:
    first, second = FakeLLM(reply), FakeLLM()
    ask(first, "a")
    ask(second, "a")
    assert (first.counts["a"], second.counts["a"]) == (1, 0), "neither another time nor in another attempt"
    with Journal(ask.journal) as journal:
        answer = journal.get(questions("a")[0].key)
    assert answer is not None
    assert answer.trouble is trouble


@pytest.mark.parametrize("more", [{}, {"refusal": None}, {"refusal": ""}, {"refusal": [1]}])
def test_an_answer_without_words_and_reason_is_asked_for_again_and_not_for_ever(
    ask: Asker, more: dict[str, object]
) -> None:
    llm = FakeLLM(lambda text, time: said(None, "stop", **more) if text == "bad" else Reply("fine"))
    assert ask(llm, "good", "bad", retries=2) == ["fine", Trouble.BAD_ANSWER]
    assert llm.counts["bad"] == 3


def test_words_beside_a_refusal_are_the_answer(ask: Asker) -> None:
    assert ask(FakeLLM(said("yes", "stop", refusal="no")), "a") == ["yes"]


# --- what is known already


def test_what_was_answered_is_not_asked_again(ask: Asker) -> None:
    first = FakeLLM(lambda text, time: Reply(status=400) if text == "c" else Reply(f"to {text}"))
    assert ask(first, *"abc") == ["to a", "to b", Trouble.REFUSED]
    second = FakeLLM(Reply("late"))
    context = Context()
    assert ask(second, *"abcd", context=context) == ["to a", "to b", "late", "late"]
    assert sorted(second.prompts()) == ["c", "d"]
    assert (context.progress.step, context.progress.of) == (4, 4)


def test_where_all_is_known_nothing_is_asked(ask: Asker) -> None:
    ask(FakeLLM(), *"ab")
    again = FakeLLM(Reply(status=500))
    assert ask(again, *"ab") == ["yes", "yes"]
    assert again.asked == []


def test_a_teacher_that_dies_in_the_middle_is_given_up_and_its_answers_stay(ask: Asker) -> None:
    """Another attempt of the Job goes on from there; without an end it would throw the rest of the prompts away."""
    llm = FakeLLM(lambda text, time: Reply() if int(text) < 20 else Reply(status=502))
    failed = refused(lambda: ask(llm, *map(str, range(1000)), concurrency=4))
    assert failed.reason is Reason.TEACHER_UNREACHABLE
    assert "40 requests in a row" in failed.message
    assert len(ask.journal.read_text().splitlines()) == 20


def test_half_a_character_does_not_spoil_the_data_set(ask: Asker) -> None:
    llm = FakeLLM(Reply(body=b'{"choices": [{"message": {"content": "cut \\ud83d"}}]}'))
    (answer,) = ask(llm, "a")
    assert answer == "cut ?"
