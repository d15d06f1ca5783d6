"""The edge runtime without a model and without a network: a GenAI library that says what a test wants it to say, and HTTP
as an application server hands it over (ASGI), with clients that hang up.

Threads and queues are the real ones. A test that wants the model to be in the middle of something holds it there.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slm_edge.backend import Messages, Piece, Request
from slm_edge.channel import pieces
from slm_edge.engine import Engine
from slm_edge.genai import GenAI
from slm_edge.metrics import Metrics
from slm_edge.openai import ApiError
from tests.unit.images.onnxbytes import place

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
END = 0
"""The token that ends an answer; every other token is a character."""
PATIENCE = 30.0
"""Real seconds until a test gives up that would otherwise hang."""


class FakeGenAI:
    """In the place of the module ``onnxruntime_genai``."""

    def __init__(self) -> None:
        self.answer: Callable[[str], str] = lambda prompt: "yes"
        self.prompts: list[str] = []
        """What was answered; the first is the warm-up."""
        self.options: list[dict[str, Any]] = []
        self.tokens = 0
        self.stopped = threading.Event()
        """Set as soon as a token is wanted and may not be made."""
        self.engines: list[Engine] = []
        self._permits: int | None = None
        self._changed = threading.Condition()
        self.loads: Callable[[], None] = lambda: None
        self.Model = self._model
        self.Config = _Config
        self.settings: dict[str, Any] = {}
        """What was laid over the model's own."""
        self.Tokenizer = lambda model: _Tokenizer()
        self.GeneratorParams = lambda model: _Params(self)
        self.Generator = lambda model, params: _Generator(self, params)
        self.Adapters = lambda model: _Adapters()
        self.hidden: Callable[[str], list[float]] | None = None
        """The state behind a letter; none where the model has no such output."""
        self.Engine: Callable[[str], Any] = _no_engine
        """Of batches: see fakebatch."""
        self.active: list[str | None] = []
        """The adapter of each answer."""

    def _model(self, config: "_Config") -> str:
        self.loads()
        self.settings = config.settings
        return config.folder

    def hold(self, after: int = 0) -> None:
        """Make so many more tokens, and then none."""
        with self._changed:
            self._permits = after
            self.stopped.clear()
            self._changed.notify_all()

    def free(self) -> None:
        """Make all tokens again."""
        with self._changed:
            self._permits = None
            self._changed.notify_all()

    def end(self) -> None:
        """End the engines."""
        self.free()
        for engine in self.engines:
            engine.stop()
            if engine._thread.ident is not None:
                engine._thread.join(PATIENCE)

    async def held(self) -> None:
        """Until the model is in the middle of an answer."""
        assert await asyncio.to_thread(self.stopped.wait, PATIENCE)

    def take(self) -> None:
        """One token; waits until it may be made."""
        with self._changed:
            while self._permits == 0:
                self.stopped.set()
                assert self._changed.wait(PATIENCE)
            if self._permits is not None:
                self._permits -= 1
            self.tokens += 1


def _no_engine(model: str) -> Any:
    raise RuntimeError("the selected execution provider has no cache for the Engine")


class _Config:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {}

    def overlay(self, text: str) -> None:
        self.settings = json.loads(text)


class _Tokenizer:
    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def create_stream(self) -> "_Tokenizer":
        return self

    def decode(self, token: int) -> str:
        return "" if token == END else chr(token)


class _Adapters:
    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def load(self, file: str, name: str) -> None:
        self.files[name] = file


class _Params:
    def __init__(self, library: FakeGenAI) -> None:
        self._library = library
        self.options: dict[str, Any] = {}

    def set_search_options(self, **options: Any) -> None:
        self.options = options
        self._library.options.append(options)


class _Generator:
    def __init__(self, library: FakeGenAI, params: _Params) -> None:
        self._library, self._end = library, params.options["max_length"]
        self._length, self._last = 0, -1
        self._coming: list[int] = []
        self._adapter: str | None = None

    def set_active_adapter(self, adapters: "_Adapters", name: str) -> None:
        assert Path(adapters.files[name]).is_absolute()
        self._adapter = name

    def append_tokens(self, tokens: list[int]) -> None:
        self._prompt = "".join(map(chr, tokens))
        self._length = len(tokens)

    def get_output(self, name: str) -> Any:
        if self._library.hidden is None:
            raise RuntimeError(f"Generator output '{name}' was not found.")
        return np.array([[self._library.hidden(letter) for letter in self._prompt]])

    def generate_next_token(self) -> None:
        if not self._coming:
            self._library.active.append(self._adapter)
            self._library.prompts.append(self._prompt)
            self._coming = [*map(ord, self._library.answer(self._prompt)), END]
        assert self._length < self._end, "longer than max_length"
        self._library.take()
        self._length += 1
        self._last = self._coming.pop(0)

    def get_next_tokens(self) -> list[int]:
        return [self._last]

    def is_done(self) -> bool:
        return self._last == END or self._length >= self._end


def model_folder(root: Path, **config: Any) -> Path:
    """A model as images have it."""
    folder = root / "models" / "m"
    place(folder)
    model = {"context_length": 100, "decoder": {"filename": "model.onnx"}}
    (folder / "genai_config.json").write_text(json.dumps({"model": model, "search": {}} | config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def use(monkeypatch: pytest.MonkeyPatch, library: FakeGenAI) -> None:
    """Put the library where the real one is imported."""
    for module in ("genai", "together"):
        monkeypatch.setattr(f"slm_edge.{module}.og", library)


def make_engine(monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, root: Path, max_queue: int = 4,
                max_length: int | None = None, **fields: Any) -> Engine:  # fmt: skip
    """An engine over a fake library; not started."""
    use(monkeypatch, library)
    unseen = {"look": lambda folder: None}  # the real look is a process, for the tests of the program
    engine = Engine(root, Metrics(), GenAI(), max_queue=max_queue, max_length=max_length, **unseen, **fields)
    library.engines.append(engine)
    return engine


def request(prompt: str | Messages = "q", **fields: Any) -> tuple[Request, list[Piece | ApiError]]:
    """A request, and what comes back on its channel."""
    said: list[Piece | ApiError] = []
    fields = {"limit": None, "temperature": None, "top_p": None, "seed": None, "stops": []} | fields
    return Request(prompt=prompt, send=said.append, **fields), said


async def ask(engine: Engine, asked: Request, limit: float = PATIENCE) -> tuple[str, Piece]:
    """(text, last piece) of an answer."""
    found = [piece async for piece in pieces(engine, asked, limit)]
    return "".join(piece.text for piece in found), found[-1]


class Exchange:
    """One request to an ASGI application, and all that comes back."""

    def __init__(self, app: Any, method: str, path: str, body: bytes | list[bytes] = b"", **headers: str) -> None:
        path, _, query = path.partition("?")
        sent = [(name.lower().encode(), text.encode()) for name, text in headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": sent, "scheme": "http",
            "server": ("test", 80), "client": ("test", 1), "root_path": "",
        }  # fmt: skip
        self._parts = [body] if isinstance(body, bytes) else list(body)
        self._gone = asyncio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._parts:
            return {"type": "http.request", "body": self._parts.pop(0), "more_body": bool(self._parts)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {key.decode(): value.decode() for key, value in message["headers"]}
        self.body += message.get("body", b"")

    def hang_up(self) -> None:
        """The client goes."""
        self._gone.set()

    async def done(self) -> "Exchange":
        """The whole answer."""
        async with asyncio.timeout(PATIENCE):
            await self.task
        return self

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The events of a stream; the last one is not JSON and left as it is."""
        lines = [line.removeprefix("data: ") for line in self.body.decode().split("\n\n") if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]
