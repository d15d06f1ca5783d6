"""The server: the OpenAI API in whole and in streams, and what clients see of a model that loads, is busy, or ends."""

import asyncio
import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("starlette")

from slm_edge.server import BODY_LIMIT
from tests.unit.images.adapterbytes import adapter, beside
from tests.unit.images.edgeserver import CHAT, Edge, Make
from tests.unit.images.fakeedge import PATIENCE, Exchange, FakeGenAI


async def test_a_text_is_continued_as_it_is(edge: Edge) -> None:
    edge.library.answer = lambda prompt: f"to {prompt}"
    body = json.dumps({"model": "m", "prompt": "once", "max_tokens": 40}).encode()
    found = (await edge.send("POST", "/v1/completions", body).done()).json()
    assert found["id"].startswith("cmpl-")
    assert [choice["text"] for choice in found["choices"]] == ["to once"], "no template around it"
    streamed = json.dumps({"model": "m", "prompt": ["once"], "max_tokens": 40, "stream": True}).encode()
    said = (await edge.send("POST", "/v1/completions", streamed).done()).body.decode()
    events = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: {")]
    assert "".join(choice["text"] for event in events for choice in event["choices"]) == "to once"
    assert said.endswith("data: [DONE]\n\n")


async def test_clients_of_foundry_local_find_what_they_look_for(edge: Edge) -> None:
    status = (await edge.get("/status")).json()
    assert set(status) == {"endpoints", "modelCachePath", "pid"}
    assert status["modelCachePath"] == "/models"
    assert (await edge.get("/models/loaded")).json() == ["m"]
    assert (await edge.get("/models/load/m")).status == 200
    unload = await edge.get("/models/unload/m")
    assert (unload.status, unload.json()["error"]["code"]) == (400, "not_supported")
    assert (await edge.get("/models/load/x")).json()["error"]["code"] == "model_not_found"
    assert (await edge.get("/models/burn/m")).status == 404


async def test_what_is_not_loaded_yet_is_not_among_the_loaded(make: Make, library: FakeGenAI) -> None:
    library.hold()
    edge = make(loaded=False)
    assert (await edge.get("/models/loaded")).json() == []


async def test_a_whole_answer(edge: Edge) -> None:
    edge.library.answer = lambda prompt: f"to {prompt}"
    answer = await edge.chat("q").done()
    assert answer.status == 200
    found = answer.json()
    assert found["id"].startswith("chatcmpl-")
    assert (found["object"], found["model"]) == ("chat.completion", "m")
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": "to <user>q<a>"}
    assert choice["finish_reason"] == "stop"
    assert found["usage"] == {"prompt_tokens": 10, "completion_tokens": 14, "total_tokens": 24}


async def test_an_answer_that_is_cut_says_so(edge: Edge) -> None:
    found = (await edge.chat(max_tokens=2).done()).json()
    assert found["choices"][0]["message"]["content"] == "ye"
    assert found["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("usage", [True, False])
async def test_a_stream_is_the_same_answer_in_pieces(edge: Edge, usage: bool) -> None:
    edge.library.answer = lambda prompt: "a\nbEND"
    answer = await edge.chat(stream=True, stream_options={"include_usage": usage}, stop=["END"]).done()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last = answer.events()
    assert last == "[DONE]"
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    if usage:
        assert (events[-1]["choices"], events[-1]["usage"]["completion_tokens"]) == ([], 6)
        events.pop()
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "a\nb"
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * (len(events) - 1) + ["stop"]
    assert len({event["id"] for event in events}) == 1
    assert not any("usage" in event for event in events)


async def test_pieces_come_as_they_are_made(edge: Edge) -> None:
    edge.library.answer = lambda prompt: "abcdef"
    edge.library.hold()
    answer = edge.chat(stream=True)
    await edge.library.held()
    assert answer.status == 0, "no status before the first token: it could still be a refusal"
    edge.library.free()
    events = (await answer.done()).events()
    assert [event["choices"][0]["delta"].get("content") for event in events[1:7]] == list("abcdef")


async def test_the_conversation_goes_through_the_models_template(edge: Edge) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}]
    await edge.chat(messages=messages).done()
    assert edge.library.prompts[-1] == "<system>s<user>q<a>"


async def test_options_reach_the_model(edge: Edge) -> None:
    await edge.chat(temperature=0.5, top_p=0.9, seed=7, max_completion_tokens=5).done()
    options = edge.library.options[-1]
    assert (options["temperature"], options["top_p"], options["random_seed"]) == (0.5, 0.9, 7)
    assert options["max_length"] == len("<user>q<a>") + 5


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "other"}, 404, "model_not_found"), ({"temperature": 9}, 400, "invalid_value"),
        ({"messages": [{"role": "user", "content": "x" * 200}]}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "unsupported_content"),
        ({"n": 2}, 400, "invalid_value"),
    ],
)  # fmt: skip
async def test_a_refusal_has_a_status_streamed_or_not(
    edge: Edge, stream: bool, fields: dict[str, Any], status: int, code: str
) -> None:
    answer = await edge.chat(stream=stream, **fields).done()
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert (await edge.figures())[f'requests_total{{code="{status}"}}'] == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_busy_server_tells_when_to_come_back(make: Make, stream: bool) -> None:
    edge = make(max_queue=1)
    edge.library.hold()
    first = edge.chat("1")
    await edge.library.held()
    second = edge.chat("2")
    await asyncio.sleep(0)
    third = await edge.chat("3", stream=stream).done()
    assert (third.status, third.headers["retry-after"]) == (429, "1")
    assert third.json()["error"]["type"] == "rate_limit_error"
    edge.library.free()
    assert ((await first.done()).status, (await second.done()).status) == (200, 200)


async def test_nothing_is_answered_before_the_model_is_loaded(make: Make, library: FakeGenAI) -> None:
    library.hold()
    edge = make(loaded=False)
    await library.held()
    answer = await edge.chat().done()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert (await edge.get("/ready")).status == 503
    assert (await edge.get("/health")).status == 200, "a model that loads is no reason for a restart"
    library.free()
    assert edge.engine.ready.wait(PATIENCE)
    assert (await edge.get("/ready")).status == 200
    assert (await edge.chat().done()).status == 200


async def test_a_model_that_cannot_be_loaded_asks_for_a_restart(make: Make, library: FakeGenAI) -> None:
    def fail() -> None:
        raise RuntimeError("unsupported operator")

    library.loads = fail
    edge = make(loaded=False)
    edge.engine._thread.join(PATIENCE)
    assert (await edge.get("/health")).status == 500
    assert "unsupported operator" in (await edge.get("/health")).json()["message"]
    assert (await edge.get("/ready")).status == 503
    assert (await edge.chat().done()).status == 503


@pytest.mark.parametrize("stream", [True, False])
async def test_a_server_that_ends_finishes_what_it_began(edge: Edge, stream: bool) -> None:
    edge.library.hold()
    begun = edge.chat(stream=stream)
    await edge.library.held()
    edge.server.draining = True
    assert (await edge.get("/ready")).status == 503, "no new clients"
    assert (await edge.chat().done()).json()["error"]["code"] == "stopping"
    assert (await edge.get("/health")).status == 200
    edge.library.free()
    assert (await begun.done()).status == 200
    assert b"stop" in begun.body


async def test_a_stream_that_nobody_reads_any_more_is_not_made(edge: Edge) -> None:
    edge.library.answer = lambda prompt: "x" * 80
    before = edge.library.tokens
    edge.library.hold(after=5)
    answer = edge.chat(stream=True)
    await edge.library.held()
    answer.hang_up()
    await asyncio.wait([answer.task])
    edge.library.free()
    edge.library.answer = lambda prompt: "next"
    assert (await edge.chat(max_tokens=1).done()).status == 200
    assert edge.library.tokens - before == 5 + 1 + 1, "the token that was being made, and the next client's"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_nobody_waits_for_is_not_made(edge: Edge, stream: bool) -> None:
    library = edge.library
    library.answer = lambda prompt: "x" * 80
    library.hold()
    before = library.tokens
    gone = edge.chat("gone", stream=stream)
    await library.held()
    queued = edge.chat("gone too", stream=stream)
    await asyncio.sleep(0)
    gone.hang_up()
    queued.hang_up()
    await asyncio.wait([gone.task, queued.task])
    library.free()
    assert (await edge.chat("next", max_tokens=1).done()).status == 200
    assert library.tokens - before == 2, "the token that was being made, and the next client's"
    assert [prompt for prompt in library.prompts if "gone too" in prompt] == []
    assert (await edge.figures())['requests_total{code="499"}'] == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_takes_too_long_is_an_error(make: Make, stream: bool) -> None:
    edge = make(seconds=0.01)
    edge.library.hold()
    answer = await edge.chat(stream=stream).done()
    assert (answer.status, answer.json()["error"]["code"]) == (504, "timeout")
    edge.library.free()


async def test_a_stream_that_stalls_in_the_middle_ends_in_time_with_an_error_and_frees_the_model(make: Make) -> None:
    edge = make(seconds=0.2)
    edge.library.answer = lambda prompt: "x" * 80
    before = edge.library.tokens
    edge.library.hold(after=2)
    async with asyncio.timeout(5):
        answer = await edge.chat(stream=True).done()
    assert answer.status == 200, "it had begun"
    *_, last = answer.events()
    assert last["error"]["code"] == "timeout"
    assert b"[DONE]" not in answer.body
    edge.library.answer = lambda prompt: "next"
    edge.library.free()
    assert (await edge.chat(max_tokens=1).done()).status == 200
    assert edge.library.tokens - before == 2 + 1 + 1, "the token that was being made, and the next client's"


async def test_a_stream_that_fails_in_the_middle_does_not_end_well(edge: Edge) -> None:
    def fail() -> list[int]:
        raise RuntimeError("canary")

    edge.library.answer = lambda prompt: "abc"
    generator = edge.library.Generator

    def broken(model: object, params: Any) -> Any:
        made = generator(model, params)
        first = iter([[ord("a")], [ord("b")]])
        made.get_next_tokens = lambda: next(first, None) or fail()  # type: ignore[method-assign]
        return made

    edge.library.Generator = broken
    answer = await edge.chat(stream=True).done()
    assert answer.status == 200, "it had begun"
    *_, last = answer.events()
    assert last["error"]["code"] == "generation_failed"
    assert b"[DONE]" not in answer.body
    assert b"canary" not in answer.body


@pytest.mark.parametrize("body", [b"x" * (BODY_LIMIT + 1), [b"x" * 1000] * 2000])
async def test_a_body_beyond_all_measure_is_not_read_to_its_end(edge: Edge, body: bytes | list[bytes]) -> None:
    answer = edge.send("POST", CHAT, body)
    assert (await answer.done()).status == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert isinstance(body, bytes) or len(answer._parts) > 900


async def test_a_body_may_come_in_parts(edge: Edge) -> None:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "ä"}]}, ensure_ascii=False).encode()
    answer = await edge.send("POST", CHAT, [raw[i : i + 1] for i in range(len(raw))]).done()
    assert answer.status == 200
    assert edge.library.prompts[-1] == "<user>ä<a>"


async def test_the_models_list_names_the_revision(edge: Edge) -> None:
    (card,) = (await edge.get("/v1/models")).json()["data"]
    assert (card["id"], card["object"], card["revision"]) == ("m", "model", "r1")
    assert (await edge.get("/v1/models/m")).json() == card
    missing = await edge.get("/v1/models/other/../m")
    assert (missing.status, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", CHAT, 405), ("DELETE", "/v1/models", 405)]
)
async def test_what_is_not_there_is_refused_in_the_apis_shape(edge: Edge, method: str, path: str, status: int) -> None:
    answer = await edge.send(method, path).done()
    assert answer.status == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_defect_is_refused_in_the_apis_shape_and_keeps_its_words(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(messages: object) -> str:
        raise ZeroDivisionError("canary")

    monkeypatch.setattr(edge.engine, "submit", defect)
    answer = edge.chat()
    with pytest.raises(ZeroDivisionError):
        await answer.done()
    assert answer.status == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert b"canary" not in answer.body


async def test_the_metrics_count_what_happened(edge: Edge) -> None:
    before = await edge.figures()
    await edge.chat(stream=True).done()
    await edge.chat(max_tokens=2).done()
    async with asyncio.timeout(PATIENCE):  # a client has its last byte before the server has counted it
        while (after := await edge.figures())["requests_in_flight"]:  # noqa: ASYNC110  (the figures come by HTTP)
            await asyncio.sleep(0.005)
    gained = {name: value - before.get(name, 0.0) for name, value in after.items()}
    assert gained["generated_tokens_total"] == 4 + 2
    assert gained["prompt_tokens_total"] == 2 * len("<user>q<a>")
    assert gained["time_to_first_token_seconds_count"] == 2
    assert before["time_to_first_token_seconds_count"] == 0, "the warm-up does not count"
    assert gained["inter_token_seconds_count"] == 3 + 1
    assert gained["request_seconds_count"] == 2
    assert gained['requests_total{code="200"}'] == 2
    assert after["queue_length"] == 0
    assert after["peak_memory_bytes"] > 1e6 < after["resident_memory_bytes"]


async def test_no_client_can_choose_a_label(edge: Edge) -> None:
    before = set(await edge.figures())
    for number in range(20):
        await edge.chat(model=f"other-{number}").done()
        await edge.get(f"/nowhere-{number}")
    assert len(set(await edge.figures()) - before) <= 2


# --- embeddings


def embed(edge: Edge, **fields: Any) -> Exchange:
    return edge.send("POST", "/v1/embeddings", json.dumps({"model": "m", "input": "ab"} | fields).encode())


@pytest.fixture
def embedding(make: Make, library: FakeGenAI) -> Edge:
    """A model that gives the states behind its letters: (3, 4) times the letter's number."""
    library.hidden = lambda letter: [3.0 * ord(letter), 4.0 * ord(letter)]
    return make()


async def test_texts_become_vectors_of_length_one(embedding: Edge) -> None:
    found = (await embed(embedding, input=["ab", "c"]).done()).json()
    assert [(entry["object"], entry["index"]) for entry in found["data"]] == [("embedding", 0), ("embedding", 1)]
    assert all(entry["embedding"] == pytest.approx([0.6, 0.8]) for entry in found["data"])
    assert (found["object"], found["model"], found["usage"]) == ("list", "m", {"prompt_tokens": 3, "total_tokens": 3})
    (packed,) = (await embed(embedding, encoding_format="base64").done()).json()["data"]
    assert struct.unpack("<2f", base64.b64decode(packed["embedding"])) == pytest.approx((0.6, 0.8))
    figures = await embedding.figures()
    assert (figures['requests_total{code="200"}'], figures["prompt_tokens_total"]) == (2, 5)


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [({"input": []}, 400, "input"), ({"input": ""}, 400, "input[0]"), ({"input": [1, 2]}, 400, "input[0]"),
     ({"input": "x" * 100}, 400, "input"), ({"dimensions": 5}, 400, "dimensions"), ({"model": "other"}, 404, "model"),
     ({"encoding_format": "hex"}, 400, "encoding_format")],
)  # fmt: skip
async def test_what_cannot_be_embedded_is_refused(
    embedding: Edge, fields: dict[str, Any], status: int, param: str
) -> None:
    answer = await embed(embedding, **fields).done()
    assert (answer.status, answer.json()["error"]["param"]) == (status, param)


async def test_a_model_without_embeddings_says_so(edge: Edge) -> None:
    answer = await embed(edge).done()
    assert (answer.status, answer.json()["error"]["code"]) == (400, "unsupported_model")
    assert "has no embeddings" in answer.json()["error"]["message"]


async def test_embeddings_that_nobody_waits_for_are_not_made(embedding: Edge) -> None:
    library = embedding.library
    library.hold()
    first = embedding.chat()
    await library.held()
    asked: list[str] = []
    library.hidden = lambda letter: asked.append(letter) or [1.0]  # type: ignore[func-returns-value]
    gone = embed(embedding)
    await asyncio.sleep(0)
    gone.hang_up()
    await asyncio.wait([gone.task])
    library.free()
    assert (await first.done()).status == 200
    assert (await embedding.chat().done()).status == 200
    assert (gone.status, asked) == (499, [])


# --- adapters


@pytest.fixture
def adapted(make: Make, tmp_path: Path) -> Edge:
    beside(tmp_path / "models" / "m", {"irrigation": adapter(), "greenhouse": adapter()})
    return make()


async def test_models_and_their_adapters_are_listed_with_their_parent(adapted: Edge) -> None:
    listed = (await adapted.get("/v1/models")).json()["data"]
    assert [(card["id"], card.get("parent")) for card in listed] == [
        ("m", None), ("m:irrigation", "m"), ("m:greenhouse", "m")
    ]  # fmt: skip
    one = await adapted.get("/v1/models/m:irrigation")
    assert (one.status, one.json()) == (200, listed[1])


@pytest.mark.parametrize("stream", [True, False])
async def test_the_field_model_chooses_the_adapter(adapted: Edge, stream: bool) -> None:
    for model, active in (("m:greenhouse", "greenhouse"), ("m", None), ("m:irrigation", "irrigation")):
        answer = await adapted.chat(model=model, stream=stream).done()
        assert answer.status == 200
        assert adapted.library.active[-1] == active
        said = answer.events()[:-1] if stream else [answer.json()]
        assert {part["model"] for part in said} == {model}
    figures = await adapted.figures()
    assert figures['adapter_answers_total{adapter="irrigation"}'] == 1
    assert figures['adapter_answers_total{adapter=""}'] == 1


@pytest.mark.parametrize("model", ["m:barn", "m:", ":irrigation", "irrigation", "other:irrigation", "m:irrigation:x"])
async def test_a_model_or_adapter_that_is_not_there_is_refused_as_openai_does(adapted: Edge, model: str) -> None:
    answers = len(adapted.library.active)
    for answer in (await adapted.chat(model=model).done(), await adapted.get(f"/v1/models/{model}")):
        error = answer.json()["error"]
        assert (answer.status, error["code"], error["type"]) == (404, "model_not_found", "invalid_request_error")
        assert (error["param"], "`m:irrigation`" in error["message"]) == ("model", True)
    assert len(adapted.library.active) == answers
    assert not any("barn" in name or "other" in name for name in await adapted.figures()), "names of strangers"


async def test_an_adapter_is_not_unknown_while_the_model_loads(make: Make, library: FakeGenAI, tmp_path: Path) -> None:
    beside(tmp_path / "models" / "m", {"irrigation": adapter()})
    library.hold()
    edge = make(loaded=False)
    await library.held()
    answer = await edge.chat(model="m:irrigation").done()
    assert (answer.status, answer.json()["error"]["code"]) == (503, "not_ready")
    assert (await edge.chat(model="other:irrigation").done()).status == 404
    library.free()
    assert edge.engine.ready.wait(PATIENCE)
    assert (await edge.chat(model="m:irrigation").done()).status == 200
