"""The edge runtime as a process sees it: over real sockets, with clients that hang up, and SIGTERM."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from slm_edge import __main__ as program
from slm_edge.door import look
from slm_edge.engine import Engine
from slmops.contract import Reason, ServeRun
from slmops.state import parse_report
from tests.unit.images.fakeedge import PATIENCE, FakeGenAI, model_folder, use
from tests.unit.images.onnxbytes import GOOD, graph, model, node, outside

CHAT = "/v1/chat/completions"


def asked(text: str = "q", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


async def ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(httpx.ConnectError):
                if (await client.get("/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the image holds is not looked at, for which a process is started."""
    monkeypatch.setattr(program, "Engine", partial(Engine, look=lambda folder: None))


@pytest.fixture
async def client(
    library: FakeGenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that runs until the test or SIGTERM ends it."""
    use(monkeypatch, library)
    model_folder(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = ServeRun(model_name="m", model_path=str(tmp_path), port=port)
    serving = asyncio.create_task(program.serve(run))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        await ready(client)
        yield client
        library.free()
        if not serving.done():
            os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        await serving


async def test_answers_come_over_http_in_whole_and_in_streams(client: httpx.AsyncClient) -> None:
    whole = await client.post(CHAT, json=asked())
    assert whole.json()["choices"][0]["message"]["content"] == "yes"
    async with client.stream("POST", CHAT, json=asked(stream=True)) as stream:
        lines = [line async for line in stream.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    said = [json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-1]]
    assert "".join(said) == "yes"


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_frees_the_model(
    client: httpx.AsyncClient, library: FakeGenAI, stream: bool
) -> None:
    library.answer = lambda prompt: "x" * 80
    before = library.tokens
    library.hold(after=5)
    gone = asyncio.create_task(client.post(CHAT, json=asked("gone", stream=stream)))
    await library.held()
    gone.cancel()
    await asyncio.wait([gone])
    for _ in range(3):  # client and server share a loop: what the kernel told it before this, it has seen by then
        metrics = (await client.get("/metrics")).text
    assert stream or 'requests_total{code="499"} 1.0' in metrics
    library.free()
    assert (await client.post(CHAT, json=asked("next", max_tokens=1))).status_code == 200
    assert library.tokens - before == 5 + 1 + 1


@pytest.mark.usefixtures("unseen")
async def test_on_sigterm_what_was_begun_is_finished(client: httpx.AsyncClient, library: FakeGenAI) -> None:
    library.hold(after=1)
    begun = asyncio.create_task(client.post(CHAT, json=asked()))
    await library.held()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                late = await client.post(CHAT, json=asked("late"))
            except httpx.TransportError:
                break
            assert late.status_code == 503, "who comes before the door is shut is told to go elsewhere"
    library.free()
    answer = await begun
    assert answer.json()["choices"][0]["message"]["content"] == "yes"


HOSTILE = {
    "external data elsewhere": ("model.onnx", model(graph((), [outside("w", [1], {"location": "../../secret"})])),
                                "'../../secret' is no name of a file in the model's folder"),
    "somebody's operator": ("model.onnx", model(graph([node("Mine", domain="com.example")])), "com.example.Mine"),
    "a model that is cut off": ("model.onnx", GOOD[:-1], "cut off, or forged"),
    "a library": ("genai_config.json", b'{"model": {"decoder": {"filename": "model.onnx", "session_options": '
                                       b'{"custom_ops_library": "libx.so"}}}}', "custom_ops_library"),
    "a pickle": ("extra.pkl", b"x", "files that can carry code"),
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_a_model_that_must_not_be_loaded_ends_the_server_and_the_kubelet_is_told_why(
    library: FakeGenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    name, content, words = HOSTILE[hostile]
    loaded: list[str] = []
    library.loads = lambda: loaded.append("a model")
    use(monkeypatch, library)
    monkeypatch.setenv("TERMINATION_PATH", str(tmp_path / "termination"))
    (model_folder(tmp_path) / name).write_bytes(content)
    run = ServeRun(model_name="m", model_path=str(tmp_path), port=0)
    async with asyncio.timeout(PATIENCE):
        assert await program.serve(run) == 3, "no other attempt helps"
    report = parse_report((tmp_path / "termination").read_text())
    assert report is not None
    assert report.reason is Reason.UNSAFE_SOURCE
    assert words in report.message
    assert loaded == []


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Load model failed:\n no kernel"), Reason.UNSUPPORTED_MODEL),
        (MemoryError("no kernel"), Reason.OUT_OF_MEMORY),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_left_to_the_kubelet_which_is_told_why(
    library: FakeGenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason
) -> None:
    def fail() -> None:
        raise error

    library.loads = fail
    use(monkeypatch, library)
    monkeypatch.setenv("TERMINATION_PATH", str(tmp_path / "termination"))
    model_folder(tmp_path)
    serving = asyncio.create_task(program.serve(ServeRun(model_name="m", model_path=str(tmp_path), port=0)))
    written = asyncio.Event()
    loop = asyncio.get_running_loop()
    report_of = program.write_report
    monkeypatch.setattr(
        program, "write_report", lambda report: (report_of(report), loop.call_soon_threadsafe(written.set))
    )
    async with asyncio.timeout(PATIENCE):
        await written.wait()
    report = parse_report((tmp_path / "termination").read_text())
    assert report is not None
    assert (report.reason, "no kernel" in report.message) == (reason, True)
    assert not serving.done()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await serving == 0


async def test_an_image_without_foundry_local_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foundry_local_sdk", None)
    monkeypatch.setenv("TERMINATION_PATH", str(tmp_path / "termination"))
    run = ServeRun(model_name="m", model_path=str(tmp_path), port=0, engine="FoundryLocal")
    async with asyncio.timeout(PATIENCE):
        assert await program.serve(run) == 3, "no other attempt helps"
    report = parse_report((tmp_path / "termination").read_text())
    assert report is not None
    assert report.reason is Reason.INVALID_CONFIGURATION
    assert report.message.startswith("spec.runtime.image has no Foundry Local")


def test_what_cannot_be_looked_at_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="exit code 1"):
        look(model_folder(tmp_path))


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["missing.json"], ["bad.json"]])
def test_a_configuration_that_cannot_be_used_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text('{"model_name": 5}')
    monkeypatch.setattr(sys, "argv", ["slm_edge", *arguments])
    assert program.main() == 2
