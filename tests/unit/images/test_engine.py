"""The engine: where answers end, stop texts, lengths, a queue with an end, and templates that are programs."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")

from slm_edge.backend import Piece
from slm_edge.channel import pieces
from slm_edge.engine import Engine
from slm_edge.openai import ApiError
from slmops.contract import ServeDefaults
from tests.unit.images.adapterbytes import adapter, beside
from tests.unit.images.fakeedge import PATIENCE, FakeGenAI, ask, make_engine, model_folder, request


def started(monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, root: Path, **fields: Any) -> Engine:
    engine = make_engine(monkeypatch, library, root, **fields)
    engine.start()
    assert engine.ready.wait(PATIENCE), engine.failure
    return engine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path) -> Engine:
    model_folder(tmp_path)
    return started(monkeypatch, library, tmp_path)


# --- answers


async def test_an_answer_ends_where_the_model_ends_it(engine: Engine, library: FakeGenAI) -> None:
    library.answer = lambda prompt: f"to {prompt}"
    text, last = await ask(engine, request("abc")[0])
    assert text == "to abc"
    assert (last.finish, last.prompt_tokens, last.completion_tokens) == ("stop", 3, 7), "the end is a token"


@pytest.mark.parametrize(
    ("limit", "text", "finish"),
    [(1, "0", "length"), (5, "01234", "length"), (10, "0123456789", "length"), (11, "0123456789", "length"),
     (12, "0123456789", "stop"), (None, "0123456789", "stop")],
)  # fmt: skip
async def test_an_answer_is_no_longer_than_asked_for(
    engine: Engine, library: FakeGenAI, limit: int | None, text: str, finish: str
) -> None:
    library.answer = lambda prompt: "0123456789"
    said, last = await ask(engine, request(limit=limit)[0])
    assert (said, last.finish) == (text, finish)
    assert last.completion_tokens == len(text) + (finish == "stop" or limit == 11)


async def test_prompt_and_answer_fit_into_the_context(engine: Engine, library: FakeGenAI) -> None:
    library.answer = lambda prompt: "x" * 1000
    for limit in (None, 10):
        _, last = await ask(engine, request("p" * 90, limit=limit)[0])
        assert (last.finish, last.prompt_tokens, last.completion_tokens) == ("length", 90, 10)


async def test_more_than_fits_beside_the_prompt_is_refused_in_the_apis_words(engine: Engine) -> None:
    with pytest.raises(ApiError) as error:
        await ask(engine, request("p" * 90, limit=11)[0])
    assert (error.value.status, error.value.code) == (400, "context_length_exceeded")
    assert error.value.message == (
        "This model's maximum context length is 100 tokens. However, you requested 101 tokens (90 in the messages, 11 in "
        "the completion). Please reduce the length of the messages or completion."
    )


async def test_an_answer_that_is_wanted_whole_comes_as_one_piece(engine: Engine, library: FakeGenAI) -> None:
    library.answer = lambda prompt: "one END two"
    for stream, count in ((False, 1), (True, len("one ") + 1)):
        found = [piece async for piece in pieces(engine, request(stops=["END"], stream=stream)[0], PATIENCE)]
        assert ("".join(piece.text for piece in found), found[-1].finish, len(found)) == ("one ", "stop", count)


@pytest.mark.parametrize("length", [100, 101, 5000])
async def test_a_prompt_that_fills_the_context_is_refused_in_the_apis_words(engine: Engine, length: int) -> None:
    with pytest.raises(ApiError) as error:
        await ask(engine, request("p" * length)[0])
    assert (error.value.status, error.value.code) == (400, "context_length_exceeded")
    assert "maximum context length is 100 tokens" in error.value.message
    assert f"{length} tokens" in error.value.message


@pytest.mark.parametrize(
    ("config", "wanted", "length"),
    [
        ({"model": {"context_length": 100}}, None, 100), ({"model": {"context_length": 100}}, 50, 50),
        ({"model": {"context_length": 100}}, 500, 100), ({"model": {}, "search": {"max_length": 80}}, None, 80),
        ({"model": {"context_length": 100}, "search": {"max_length": 80}}, None, 80),
        ({"model": {"context_length": 100}, "search": {"max_length": 80}}, 90, 90), ({"model": {}}, None, 2048),
    ],
)  # fmt: skip
def test_the_context_is_the_models_unless_less_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
    library: FakeGenAI,
    tmp_path: Path,
    config: dict[str, Any],
    wanted: int | None,
    length: int,
) -> None:
    model_folder(tmp_path, **config)
    assert started(monkeypatch, library, tmp_path, max_length=wanted).max_length == length


async def test_an_answer_ends_before_a_stop_text(engine: Engine, library: FakeGenAI) -> None:
    library.answer = lambda prompt: "one END two"
    before = library.tokens
    text, last = await ask(engine, request(stops=["END"])[0])
    assert (text, last.finish) == ("one ", "stop")
    assert library.tokens - before == len("one END"), "and the rest is not made"


async def test_the_beginning_of_a_stop_text_at_the_end_is_text(engine: Engine, library: FakeGenAI) -> None:
    library.answer = lambda prompt: "one EN"
    assert (await ask(engine, request(stops=["END"])[0]))[0] == "one EN"
    assert (await ask(engine, request(stops=["END"], limit=6)[0]))[0] == "one EN"


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}),
        ({"temperature": 0.0}, {"do_sample": False}),
        ({"temperature": 0.0, "top_p": 0.5}, {"do_sample": False}),
        ({"temperature": 0.5}, {"do_sample": True, "top_k": 0, "temperature": 0.5, "top_p": 1.0}),
        ({"top_p": 0.5}, {"do_sample": True, "top_k": 0, "temperature": 1.0, "top_p": 0.5}),
        ({"seed": 7}, {"random_seed": 7}), ({"seed": 2**63 + 5}, {"random_seed": 5}),
        ({"seed": -1}, {"random_seed": 2**31 - 1}),
    ],
)  # fmt: skip
async def test_sampling_is_the_models_own_unless_asked_for(
    engine: Engine, library: FakeGenAI, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    await ask(engine, request(**fields)[0])
    assert library.options[-1] == {"max_length": 100, "batch_size": 1} | options


async def test_requests_are_answered_one_after_the_other(engine: Engine, library: FakeGenAI) -> None:
    library.hold()
    asked = [request(str(number))[0] for number in range(3)]
    answers = [asyncio.create_task(ask(engine, one)) for one in asked]
    await library.held()
    library.free()
    await asyncio.gather(*answers)
    assert library.prompts[1:] == ["0", "1", "2"]


async def test_a_full_queue_tells_when_to_come_back(engine: Engine, library: FakeGenAI) -> None:
    library.hold()
    first = asyncio.create_task(ask(engine, request("first")[0]))
    await library.held()
    waiting = [asyncio.create_task(ask(engine, request(str(number))[0])) for number in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(ApiError) as error:
        engine.submit(request("one too many")[0])
    assert (error.value.status, error.value.retry_after) == (429, 1)
    library.free()
    assert [text for text, _ in await asyncio.gather(first, *waiting)] == ["yes"] * 5, "all others are answered"
    assert "one too many" not in library.prompts


async def test_who_no_longer_waits_is_not_answered(engine: Engine, library: FakeGenAI) -> None:
    library.answer = lambda prompt: "x" * 50
    library.hold()
    first, second = (asyncio.create_task(ask(engine, request(text)[0])) for text in ("first", "second"))
    await library.held()
    before = library.tokens
    for task in (first, second):
        task.cancel()
    await asyncio.wait([first, second])
    library.free()
    assert (await ask(engine, request("third")[0]))[0] == "x" * 50
    assert library.prompts[1:] == ["first", "third"]
    assert library.tokens - before == 1 + 51, "the first ends with the token that was being made"


async def test_an_answer_that_takes_too_long_is_given_up(engine: Engine, library: FakeGenAI) -> None:
    library.hold()
    with pytest.raises(ApiError) as error:
        await ask(engine, request("slow")[0], limit=0.01)
    assert error.value.status == 504
    library.free()
    assert (await ask(engine, request("next")[0]))[0] == "yes"


async def slowly(answer: AsyncIterator[Piece]) -> None:
    """Read to the end, with a pause after each piece."""
    async for _ in answer:
        await asyncio.sleep(0.05)


async def test_the_time_of_an_answer_is_one_for_all_its_pieces_whoever_takes_them(
    engine: Engine, library: FakeGenAI
) -> None:
    """The server takes the first piece in a task of its own; and many short waits are a long one."""
    library.answer = lambda prompt: "x" * 80
    asked, _ = request()
    answer = pieces(engine, asked, 0.2)
    assert (await asyncio.create_task(anext(answer))).text == "x"
    begun = time.monotonic()
    with pytest.raises(ApiError, match="not done within") as caught:
        await slowly(answer)
    assert time.monotonic() - begun < 2
    assert caught.value.status == 504
    assert asked.cancelled.is_set()


async def test_a_failure_of_the_library_costs_one_request(engine: Engine, library: FakeGenAI) -> None:
    def fail(prompt: str) -> str:
        raise RuntimeError("canary of the library")

    library.answer = fail
    with pytest.raises(ApiError) as error:
        await ask(engine, request()[0])
    assert error.value.status == 500
    assert "canary" not in error.value.message
    library.answer = lambda prompt: "fine"
    assert (await ask(engine, request()[0]))[0] == "fine"


async def test_what_is_queued_is_finished_before_the_end(engine: Engine, library: FakeGenAI) -> None:
    library.hold()
    answers = [asyncio.create_task(ask(engine, request(str(number))[0])) for number in range(3)]
    await library.held()
    engine.stop()
    library.free()
    assert [text for text, _ in await asyncio.gather(*answers)] == ["yes"] * 3


async def test_the_end_does_not_wait_for_a_place_in_a_full_queue(engine: Engine, library: FakeGenAI) -> None:
    library.hold()
    tasks = [asyncio.create_task(ask(engine, request()[0]))]
    await library.held()
    tasks += [asyncio.create_task(ask(engine, request()[0])) for _ in range(4)]
    await asyncio.sleep(0)
    stopping = threading.Thread(target=engine.stop, daemon=True)
    stopping.start()
    await asyncio.to_thread(stopping.join, PATIENCE)
    assert not stopping.is_alive()
    library.free()
    await asyncio.gather(*tasks)


# --- loading


def failure(monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, root: Path) -> str:
    engine = make_engine(monkeypatch, library, root)
    engine.start()
    engine._thread.join(PATIENCE)
    assert not engine.ready.is_set()
    assert engine.failure is not None
    return engine.failure


def test_a_folder_without_a_model_is_a_failure_that_names_it(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path
) -> None:
    assert "exactly one genai_config.json" in failure(monkeypatch, library, tmp_path)
    model_folder(tmp_path / "a")
    model_folder(tmp_path / "b")
    assert "found 2" in failure(monkeypatch, library, tmp_path)


@pytest.mark.parametrize(
    "problem", ["no template", "template of no sense", "template that fails", "no JSON", "library", "silence"]
)
def test_a_model_that_cannot_answer_is_never_ready(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path, problem: str
) -> None:
    folder = model_folder(tmp_path)
    template = folder / "chat_template.jinja"
    if problem == "no template":
        template.unlink()
    elif problem == "template of no sense":
        template.write_text("{% for")
    elif problem == "template that fails":
        template.write_text("{{ 1 + 'x' }}")
    elif problem == "no JSON":
        (folder / "genai_config.json").write_text("{")
    else:

        def fail(*prompt: str) -> Any:
            raise RuntimeError("the library's words")

        monkeypatch.setattr(library, "loads" if problem == "library" else "answer", fail)
    assert failure(monkeypatch, library, tmp_path)


def test_a_model_is_ready_once_it_has_made_a_token(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path
) -> None:
    model_folder(tmp_path)
    library.hold()
    engine = make_engine(monkeypatch, library, tmp_path)
    engine.start()
    assert library.stopped.wait(PATIENCE)
    assert not engine.ready.is_set()
    library.free()
    assert engine.ready.wait(PATIENCE)
    assert library.prompts == ["<user>hello<a>"]


# --- adapters


def with_adapters(root: Path) -> None:
    folder = model_folder(root)
    beside(folder, {"irrigation": adapter(), "greenhouse": adapter()})


async def test_each_request_is_answered_with_its_own_adapter_or_none(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path
) -> None:
    with_adapters(tmp_path)
    engine = started(monkeypatch, library, tmp_path)
    assert engine.adapters == ("irrigation", "greenhouse")
    assert library.active == [None, "irrigation", "greenhouse"], "each has answered before the engine is ready"
    wanted = ["greenhouse", None, "irrigation", None]
    for name in wanted:
        await ask(engine, request(adapter=name)[0])
    assert library.active[3:] == wanted
    counted = engine._metrics.adapter_answers
    assert [counted.labels(name)._value.get() for name in ("", "irrigation", "greenhouse")] == [2, 1, 1]


async def test_a_model_without_adapters_needs_nothing_of_them(engine: Engine, library: FakeGenAI) -> None:
    library.Adapters = lambda model: pytest.fail("asked for")  # type: ignore[assignment]
    await ask(engine, request()[0])
    assert engine.adapters == ()
    assert library.active == [None, None]
    assert not list(engine._metrics.adapter_answers.collect()[0].samples)


def test_an_adapter_that_cannot_be_used_fails_the_engine(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path
) -> None:
    with_adapters(tmp_path)
    file = tmp_path / "models" / "m" / "adapters" / "greenhouse.onnx_adapter"
    file.write_bytes(b"changed")
    engine = make_engine(monkeypatch, library, tmp_path)
    engine._work()
    assert engine.failure is not None
    assert "greenhouse.onnx_adapter is not the file that is meant" in engine.failure


# --- what a server is set to


@pytest.mark.parametrize(
    ("defaults", "loaded"),
    [(None, {"temperature": 0.7, "top_p": 0.9, "do_sample": True}),
     (ServeDefaults(top_p=0.5), {"temperature": 0.7, "top_p": 0.5, "do_sample": True}),
     (ServeDefaults(temperature=0.0, repetition_penalty=1.2),
      {"temperature": 0.0, "top_p": 0.9, "do_sample": False, "repetition_penalty": 1.2})],
)  # fmt: skip
def test_defaults_of_a_server_are_laid_over_the_models_own(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path, defaults: ServeDefaults | None, loaded: Any
) -> None:
    model_folder(tmp_path, search={"temperature": 0.7, "top_p": 0.9, "do_sample": True})
    started(monkeypatch, library, tmp_path, defaults=defaults)
    assert library.settings == {"search": loaded}


@pytest.mark.parametrize(
    ("allowed", "own", "threads"),
    [(1, {}, {"intra_op_num_threads": 1}), (1, {"intra_op_num_threads": 2}, None), (4, {}, None)],
)
def test_a_server_takes_the_threads_of_its_container_unless_its_model_says_how_many(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path, allowed: int, own: Any, threads: Any
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr("slmkit.cores._quota", lambda _: allowed)
    model_folder(tmp_path, model={"context_length": 100, "decoder": {"filename": "model.onnx", "session_options": own}})
    started(monkeypatch, library, tmp_path)
    expected = {} if threads is None else {"model": {"decoder": {"session_options": threads}}}
    assert library.settings == {"search": {}} | expected


@pytest.mark.parametrize(
    ("said", "options"),
    [({}, {}), ({"temperature": 0.3}, {"do_sample": True, "top_k": 0, "temperature": 0.3, "top_p": 0.9}),
     ({"top_p": 0.4}, {"do_sample": True, "top_k": 0, "temperature": 0.7, "top_p": 0.4}),
     ({"temperature": 0, "top_p": 0.4}, {"do_sample": False})],
)  # fmt: skip
async def test_what_a_request_does_not_say_is_as_the_server_has_it(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path, said: Any, options: Any
) -> None:
    model_folder(tmp_path, search={"temperature": 0.7, "top_p": 0.9})
    await ask(started(monkeypatch, library, tmp_path), request(**said)[0])
    assert library.options[-1] == options | {"batch_size": 1, "max_length": 100}


def test_an_adapter_that_the_model_does_not_have_is_named(
    monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path
) -> None:
    beside(model_folder(tmp_path), {"irrigation": adapter()})
    failures: list[Exception] = []
    engine = make_engine(monkeypatch, library, tmp_path, adapter="noise", failed=failures.append)
    engine.start()
    engine._thread.join(PATIENCE)
    assert not engine.ready.is_set()
    assert "spec.pools[].adapter: the model image has no adapter noise, it has irrigation" in str(failures[0])
