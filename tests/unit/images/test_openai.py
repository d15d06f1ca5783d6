"""The OpenAI API's words: what is understood, and what is refused in which words."""

import json
from typing import Any

import pytest

from slm_edge.openai import ApiError, Chat, ChatRequest, CompletionRequest, Message, Text, parse, usage

CHAT, TEXT = Chat("id", 5, "m"), Text("id", 5, "m")
USER = {"role": "user", "content": "hi"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER]} | fields).encode()


def refused(raw: bytes) -> ApiError:
    with pytest.raises(ApiError) as error:
        parse(raw, ChatRequest)
    return error.value


def test_the_shortest_request() -> None:
    asked = parse(body(), ChatRequest)
    assert (asked.model, asked.messages[0].text(), asked.limit(), asked.stops(), asked.stream) == (
        "m",
        "hi",
        None,
        [],
        False,
    )


def test_a_request_with_everything() -> None:
    asked = parse(body(
        max_tokens=5, temperature=0, top_p=0.5, stop=["a", ""], seed=-(2**63), stream=True, n=1,
        stream_options={"include_usage": True}, tools=[{"type": "function"}], logit_bias={}, user="u",
    ), ChatRequest)  # fmt: skip
    assert (asked.limit(), asked.temperature, asked.top_p, asked.stops()) == (5, 0, 0.5, ["a"])
    assert asked.stream_options is not None
    assert asked.stream_options.include_usage


@pytest.mark.parametrize(
    ("fields", "limit"),
    [({}, None), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 7}, 7), ({"max_tokens": None}, None),
     ({"max_tokens": 5, "max_completion_tokens": 7}, 7)],
)  # fmt: skip
def test_the_newer_name_of_the_limit_counts(fields: dict[str, int | None], limit: int | None) -> None:
    assert parse(body(**fields), ChatRequest).limit() == limit


@pytest.mark.parametrize(("stop", "texts"), [(None, []), ("", []), ("a", ["a"]), (["a", "b"], ["a", "b"]), ([], [])])
def test_stop_texts(stop: object, texts: list[str]) -> None:
    assert parse(body(stop=stop), ChatRequest).stops() == texts


BAD: list[tuple[bytes, str | None]] = [
    (b"", None), (b"{", None), (b"[]", None), (b"null", None), (b"\xff", None), (b"[" * 100_000, None), (b"{}", "model"),
    (b'{"model": "m"}', "messages"), (body(messages=[]), "messages"), (body(messages="hi"), "messages"),
    (body(messages=[USER] * 1025), "messages"), (body(messages=[{"role": "user"}]), "messages[0].content"),
    (body(messages=[USER, {"role": "robot", "content": "x"}]), "messages[1].role"), (body(model=5), "model"),
    (body(messages=[{"role": "user", "content": None}]), "messages[0].content"), (body(n=2), "n"),
    (body(messages=[{"role": "user", "content": [5]}]), "messages[0].content[0]"), (body(max_tokens=0), "max_tokens"),
    (body(messages=[{"role": "user", "content": {}}]), "messages[0].content"), (body(max_tokens="many"), "max_tokens"),
    (body(max_completion_tokens=-1), "max_completion_tokens"), (body(max_tokens=1.5), "max_tokens"),
    (body(temperature=-0.1), "temperature"), (body(temperature=2.1), "temperature"), (body(top_p=0), "top_p"),
    (body(temperature=float("nan")), "temperature"), (body(temperature=float("inf")), "temperature"),
    (body(top_p=1.1), "top_p"), (body(seed="x"), "seed"), (body(stream="perhaps"), "stream"), (body(stop=5), "stop"),
    (body(stop=["x"] * 5), "stop"), (body(stop="x" * 257), "stop[0]"), (body(stop=["x", "x" * 257]), "stop[1]"),
    (body(stop=[5]), "stop[0]"), (b'{"model": "\\ud800", "messages": []}', None),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "param"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_not_understood_is_a_400_that_names_the_field(raw: bytes, param: str | None) -> None:
    error = refused(raw)
    assert error.status == 400
    found = error.body()["error"]
    assert found["type"] == "invalid_request_error"
    assert found["param"] == param
    assert found["message"].startswith(f"{found['param'] or 'body'}: ")


def test_what_is_refused_is_not_repeated() -> None:
    assert "canary" not in refused(body(temperature="canary" * 1000)).message


def test_text_parts_are_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert Message(role="user", content=parts).text() == "ab"
    assert Message(role="user", content=[]).text() == ""


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "x"}}, {}, {"type": "text"}, {"type": "text", "text": 5}]
)
def test_other_parts_are_refused(part: dict[str, object]) -> None:
    with pytest.raises(ApiError) as error:
        Message(role="user", content=[{"type": "text", "text": "a"}, part]).text()
    assert (error.value.status, error.value.code) == (400, "unsupported_content")


@pytest.mark.parametrize(
    ("status", "type"),
    [(400, "invalid_request_error"), (404, "invalid_request_error"), (413, "invalid_request_error"),
     (429, "rate_limit_error"), (500, "server_error"), (503, "server_error"), (504, "server_error")],
)  # fmt: skip
def test_an_error_has_the_type_that_clients_look_at(status: int, type: str) -> None:
    error = ApiError(status, "m", param="p", code="c")
    assert error.body() == {"error": {"message": "m", "type": type, "param": "p", "code": "c"}}


def test_a_whole_answer() -> None:
    assert CHAT.whole("text", "stop", usage(3, 4)) == {
        "id": "id", "object": "chat.completion", "created": 5, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "text"}, "logprobs": None,
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }  # fmt: skip


def event(raw: bytes) -> Any:
    assert raw.startswith(b"data: ")
    assert raw.endswith(b"\n\n")
    assert raw.count(b"\n") == 2, "an event is one line, whatever is in it"
    return json.loads(raw[6:])


def test_a_streamed_answer_comes_in_events() -> None:
    piece = event(CHAT.piece("line\nä\r\u2028\x00"))
    assert piece["object"] == "chat.completion.chunk"
    assert piece["choices"] == [
        {"index": 0, "delta": {"content": "line\nä\r\u2028\x00"}, "logprobs": None, "finish_reason": None}
    ]
    assert "usage" not in piece
    assert event(CHAT.end("length"))["choices"][0]["finish_reason"] == "length"
    last = event(CHAT.counted(usage(3, 4)))
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 7)


# --- a text that is to be continued


def test_a_text_is_one_or_a_list_of_one() -> None:
    for prompt in ("once", ["once"]):
        asked = parse(json.dumps({"model": "m", "prompt": prompt}).encode(), CompletionRequest)
        assert (asked.prompt, asked.limit()) == (["once"], 16)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"prompt": ["a", "b"]}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": [1]}, "prompt[0]"), ({}, "prompt"),
     ({"prompt": "a", "echo": True}, "echo"), ({"prompt": "a", "best_of": 2}, "best_of"),
     ({"prompt": "a", "suffix": "b"}, "suffix"), ({"prompt": "a", "n": 2}, "n")],
)  # fmt: skip
def test_what_nobody_here_can_do_with_a_text_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse(json.dumps({"model": "m"} | fields).encode(), CompletionRequest)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_a_continued_text_whole_and_in_events() -> None:
    assert TEXT.whole("text", "length", usage(3, 4)) == {
        "id": "id", "object": "text_completion", "created": 5, "model": "m",
        "choices": [{"index": 0, "text": "text", "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }  # fmt: skip
    assert TEXT.begin() == b""
    assert event(TEXT.piece("a"))["choices"] == [{"index": 0, "text": "a", "logprobs": None, "finish_reason": None}]
    assert event(TEXT.end("stop"))["choices"][0]["finish_reason"] == "stop"
    assert event(TEXT.counted(usage(3, 4)))["object"] == "text_completion"
