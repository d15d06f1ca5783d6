"""The runtime's program with its real libraries and a model that is made in a moment: both engines, in processes of their
own on this machine. No cluster is needed."""

import base64
import json
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench import serving
from bench.place import free_port
from demo.steps import ROOT
from slmops.contract import ServeRun
from tests import pinned
from tests.unit.images.adapterbytes import adapter, beside

NAME = "made"
PYTHONPATH = ":".join(str(ROOT / place) for place in serving.PLACES)
SHAPE = serving.MODELS["the demo's student"][0]
ENGINES = ("OnnxRuntimeGenAI", "FoundryLocal")


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter that has the libraries."""
    return str(pinned.python(serving.HERE / "constraints.txt"))


@pytest.fixture(scope="module")
def model(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives its hidden states."""
    folder = tmp_path_factory.mktemp("models") / NAME
    command = [python, serving.HERE / "model.py", folder, NAME, *SHAPE, "hidden"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return folder


class Server:
    """The program as a pod runs it."""

    def __init__(self, python: str, model: Path, place: Path, engine: str, **fields: Any) -> None:
        self.port, self.termination = free_port(), place / "termination"
        run = ServeRun(model_name=NAME, model_path=str(model), port=self.port, engine=engine, **fields)  # type: ignore[arg-type]
        (place / "run.json").write_text(run.model_dump_json())
        environment = {"PYTHONPATH": PYTHONPATH, "TERMINATION_PATH": str(self.termination), "TMPDIR": str(place)}
        self.process = subprocess.Popen([python, "-m", "slm_edge", str(place / "run.json")], env=environment,
                                        stdout=(place / "log").open("w"), stderr=subprocess.STDOUT)  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def ready(self) -> "Server":
        ends = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, "it has ended"
            try:
                if self.client.get("/ready").status_code == 200:
                    return self
            except httpx.TransportError:
                assert time.monotonic() < ends
            time.sleep(0.05)

    def chat(self, text: str = "open the gate", **fields: Any) -> httpx.Response:
        body = {"model": NAME, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 8}
        return self.client.post("/v1/chat/completions", json=body | fields)

    def end(self) -> int:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture(scope="module", params=ENGINES)
def server(
    request: pytest.FixtureRequest, python: str, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that serves; it ends well."""
    server = Server(python, model, tmp_path_factory.mktemp(request.param), request.param)
    try:
        yield server.ready()
        assert server.end() == 0
    finally:
        server.process.kill()
        server.process.wait()


def events(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    *found, last = [line[6:] for line in answer.text.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(line) for line in found]


def test_a_stream_is_the_same_answer_as_the_whole(server: Server) -> None:
    whole = server.chat().json()
    streamed = events(server.chat(stream=True, stream_options={"include_usage": True}))
    text = "".join(choice["delta"].get("content", "") for event in streamed for choice in event["choices"])
    assert text == whole["choices"][0]["message"]["content"] != ""
    assert streamed[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] == 8
    assert streamed[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == "length"
    assert len(streamed) > 5, "in pieces"


def test_both_engines_read_the_same_prompt_and_say_the_same(python: str, model: Path, tmp_path: Path) -> None:
    said = []
    for engine in ENGINES:
        (tmp_path / engine).mkdir()
        server = Server(python, model, tmp_path / engine, engine)
        try:
            answer = server.ready().chat("close the barn").json()
            said.append((answer["choices"][0]["message"]["content"], answer["usage"]))
        finally:
            server.end()
    assert said[0] == said[1]


def test_an_answer_ends_before_a_stop_text(server: Server) -> None:
    whole = server.chat().json()["choices"][0]["message"]["content"]
    stop = whole[3:6]
    answer = server.chat(stop=[stop]).json()["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == (whole[: whole.index(stop)], "stop")


def test_a_seed_gives_the_same_answer_again(server: Server) -> None:
    options = {"temperature": 1.5, "top_p": 0.95, "max_tokens": 24}
    answers = [server.chat(seed=seed, **options).json()["choices"][0]["message"]["content"] for seed in (7, 7, 8)]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [({"text": "x" * 600}, 400, "context_length_exceeded"), ({"max_tokens": 600}, 400, "context_length_exceeded"),
     ({"model": "nobody"}, 404, "model_not_found"), ({"temperature": 9}, 400, "invalid_value")],
)  # fmt: skip
def test_refusals_are_as_openai_words_them(server: Server, fields: dict[str, Any], status: int, code: str) -> None:
    answer = server.chat(**fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_an_answer_without_a_limit_fills_the_context(server: Server) -> None:
    usage = server.chat("x" * 460, max_tokens=None).json()["usage"]
    assert usage["total_tokens"] == 512


def test_clients_that_come_together_are_all_answered(server: Server) -> None:
    with ThreadPoolExecutor(12) as clients:
        answers = list(
            clients.map(lambda number: server.chat(f"open {number}", max_tokens=number + 1).json(), range(12))
        )
    assert [answer["usage"]["completion_tokens"] for answer in answers] == list(range(1, 13))
    streams = {"stream": True, "stream_options": {"include_usage": True}}
    with ThreadPoolExecutor(8) as clients:
        streamed = list(clients.map(lambda number: events(server.chat(f"open {number}", **streams)), range(8)))
    assert [found[-1]["usage"]["completion_tokens"] for found in streamed] == [8] * 8


def test_a_client_that_goes_frees_the_model(server: Server) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 400, "stream": True}
    for _ in range(3):
        with server.client.stream("POST", "/v1/chat/completions", json=body) as stream:
            next(stream.iter_bytes())
    assert server.chat().status_code == 200
    page = server.client.get("/metrics").text
    assert 'slmops_runtime_requests_total{code="200"}' in page
    assert "slmops_runtime_requests_in_flight 0.0" in page


def test_the_benchmark_finds_the_memory_that_it_asks_for(server: Server) -> None:
    page = server.client.get("/metrics").text
    (peak,) = [line for line in page.splitlines() if line.startswith("slmops_runtime_peak_memory_bytes ")]
    assert 20e6 < float(peak.split()[1]) < 1e9
    assert "slmops_runtime_time_to_first_token_seconds_bucket" in page
    assert "slmops_runtime_inter_token_seconds_bucket" in page


def embed(server: Server, **fields: Any) -> httpx.Response:
    return server.client.post("/v1/embeddings", json={"model": NAME} | fields)


def test_embeddings_are_of_models_that_have_them(python: str, model: Path, tmp_path: Path) -> None:
    server = Server(python, model, tmp_path, "OnnxRuntimeGenAI")
    try:
        server.ready()
        found = embed(server, input=["open the gate", "water the field", "open the gate"]).json()
        first, second, third = (entry["embedding"] for entry in found["data"])
        assert first == third != second
        assert len(first) == SHAPE[1]
        assert sum(number**2 for number in first) == pytest.approx(1, abs=1e-5)
        assert found["usage"] == {"prompt_tokens": 14 + 16 + 14, "total_tokens": 44}, "the end of each is a token"
        (packed,) = embed(server, input="open the gate", encoding_format="base64").json()["data"]
        assert struct.unpack(f"<{SHAPE[1]}f", base64.b64decode(packed["embedding"])) == pytest.approx(first)
        assert embed(server, input="x" * 600).json()["error"]["code"] == "context_length_exceeded"
        assert embed(server, input=[]).json()["error"]["param"] == "input"
    finally:
        server.end()


def test_without_embeddings_the_error_says_so(server: Server, python: str, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    subprocess.run([python, serving.HERE / "model.py", folder, NAME, *map(str, SHAPE)], check=True, capture_output=True)
    plain = Server(python, folder, tmp_path, "OnnxRuntimeGenAI")
    try:
        refused = embed(plain.ready(), input="open")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_model")
        assert "no embeddings" in refused.json()["error"]["message"]
    finally:
        plain.end()


def test_foundry_local_continues_no_texts(python: str, model: Path, tmp_path: Path) -> None:
    server = Server(python, model, tmp_path, "FoundryLocal")
    try:
        server.ready()
        refused = server.client.post("/v1/completions", json={"model": NAME, "prompt": "once"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_supported")
        assert embed(server, input="open").json()["error"]["code"] == "unsupported_model"
    finally:
        server.end()


def test_foundry_local_refuses_a_model_with_adapters_and_says_why(python: str, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    beside(folder, {"irrigation": adapter()})
    server = Server(python, folder, tmp_path, "FoundryLocal")
    assert server.process.wait(60) == 3, "no other attempt helps"
    assert json.loads(server.termination.read_text())["outcome"] == "Failed"
