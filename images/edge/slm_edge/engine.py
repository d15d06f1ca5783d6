"""The model in memory: requests in, pieces of answers out, one after the other in one worker thread.

One at a time is what a small model on a small CPU is fastest with (docs/decisions.md has the figures); the queue in front
is bounded, so that a client is told to come back rather than kept waiting for ever. What answers is a backend.
"""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from slm_edge.door import look
from slm_edge.metrics import Metrics
from slm_edge.openai import ApiError
from slm_edge.text import Held
from slmkit.run import RunFailed

NEEDED = "genai_config.json"
Messages = list[dict[str, str]]


@dataclass
class Request:
    """One answer: what is asked, and the channel that it comes back on."""

    prompt: str | Messages
    """A text that is continued as it is, or a conversation."""
    limit: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stops: list[str]
    send: Callable[["Piece | ApiError"], None]
    stream: bool = True
    """Else the answer comes as one piece: a token that nobody looks at by itself wakes nobody."""
    adapter: str | None = None
    """None: the model alone."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    received: float = field(default_factory=time.perf_counter)


@dataclass
class Embedding:
    """Texts that are to become vectors, and the channel for them."""

    texts: Sequence[str]
    send: Callable[["Piece | ApiError"], None]
    adapter: str | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    received: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Piece:
    """A token's text; the last one has a reason to finish and the counts, and of embeddings the vectors."""

    text: str = ""
    finish: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    vectors: Sequence[Sequence[float]] = ()


class Telling:
    """An answer on its way out: held back as long as it could be a stop text, sent in pieces or as one, and timed."""

    def __init__(self, request: Request) -> None:
        self._request, self._held = request, Held(request.stops)
        self._whole: list[str] = []
        self.times: list[float] = []
        """When each token was made."""

    @property
    def over(self) -> bool:
        """Whether nothing more is wanted: a stop text was made, or nobody waits any more."""
        return self._held.stopped or self._request.cancelled.is_set()

    @property
    def stopped(self) -> bool:
        """Whether a stop text was made."""
        return self._held.stopped

    def token(self) -> None:
        """One was made."""
        self.times.append(time.perf_counter())

    def text(self, piece: str) -> None:
        """What it says."""
        self._out(self._held.add(piece))

    def end(self, finish: str, prompt_tokens: int, completion_tokens: int) -> None:
        """The answer is whole."""
        self._out(self._held.rest())
        self._request.send(Piece("".join(self._whole), finish, prompt_tokens, completion_tokens))

    def _out(self, text: str) -> None:
        if not text:
            return
        if self._request.stream:
            self._request.send(Piece(text))
        else:
            self._whole.append(text)


class Backend(Protocol):
    """What has the model and generates. All but the attributes is for the worker thread."""

    adapters: tuple[str, ...]
    """Names of those that the model came with."""
    length: int
    """Prompt and answer together, in tokens."""

    def load(self, folder: Path, config: dict[str, Any], wanted: int | None) -> None:
        """Load a model that was looked at. ``wanted``: no longer than this."""

    def answer(self, request: Request, telling: Telling) -> tuple[str, int, int]:
        """Generate. Returns why it ended, and the tokens of prompt and answer. Raises ApiError for what is refused."""

    def embed(self, request: Embedding) -> tuple[list[list[float]], int]:
        """Vectors of texts, and how many tokens were read. Raises ApiError where the model has none."""


def find_model(root: Path) -> Path:
    """The folder below ``root`` that holds a GenAI model."""
    found = sorted(root.rglob(NEEDED))
    if len(found) != 1:
        raise FileNotFoundError(f"{root}: exactly one {NEEDED} is expected below it, found {len(found)}")
    return found[0].parent


def limits(config: dict[str, Any], wanted: int | None) -> int:
    """Tokens of prompt and answer together: the model's own default, or what is wanted, within what it can read."""
    search = config.get("search", {})
    context = int(config.get("model", {}).get("context_length") or search.get("max_length") or 2048)
    return min(wanted or int(search.get("max_length") or context), context)


class Engine:
    """Loads a model and answers."""

    def __init__(
        self, root: Path, metrics: Metrics, backend: Backend, *, max_queue: int, max_length: int | None,
        look: Callable[[Path], None] = look, failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:  # fmt: skip
        self._root, self._look, self._failed = root, look, failed
        self._metrics, self._backend = metrics, backend
        self._max_length = max_length
        self._queue: queue.Queue[Request | Embedding | None] = queue.Queue(max_queue)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.ready = threading.Event()
        """Set once a token was generated."""
        self.failure: str | None = None
        self.adapters: tuple[str, ...] = ()
        """Names of those that the model came with, once it is ready."""

    @property
    def max_length(self) -> int:
        """Prompt and answer together, in tokens."""
        return self._backend.length

    def start(self) -> None:
        """Load and warm up in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more; what is queued is finished."""
        with contextlib.suppress(queue.Full):  # whoever is in a full queue has been waiting for longer than we may
            self._queue.put_nowait(None)

    def submit(self, request: Request | Embedding) -> None:
        """Queue a request. Raises ApiError 429 when the queue is full."""
        try:
            self._queue.put_nowait(request)
        except queue.Full:
            raise ApiError(429, "the queue is full, try again", code="queue_full", retry_after=1) from None
        self._metrics.queued.set(self._queue.qsize())

    # --- the worker

    def _work(self) -> None:
        try:
            self._load()
        except Exception as error:
            self.failure = f"{error.reason if isinstance(error, RunFailed) else type(error).__name__}: {error}"
            self._failed(error)
            return
        self.ready.set()
        while (request := self._queue.get()) is not None:
            self._metrics.queued.set(self._queue.qsize())
            if request.cancelled.is_set():
                continue
            self._metrics.running.inc()
            try:
                if isinstance(request, Embedding):
                    self._embed(request)
                else:
                    self._count(request, *self._answer(request))
            except ApiError as error:
                request.send(error)
            except Exception as error:
                request.send(ApiError(500, f"generation failed: {type(error).__name__}", code="generation_failed"))
            finally:
                self._metrics.running.dec()

    def _load(self) -> None:
        folder = find_model(self._root)
        self._look(folder)
        self._backend.load(folder, json.loads((folder / NEEDED).read_text()), self._max_length)
        hello: Messages = [{"role": "user", "content": "hello"}]
        for adapter in (None, *self._backend.adapters):  # so that the first request with each finds it working
            self._answer(Request(hello, 1, 0.0, None, None, [], lambda piece: None, False, adapter))
        self.adapters = self._backend.adapters

    def _answer(self, request: Request) -> tuple[list[float], int]:
        telling = Telling(request)
        finish, prompt, made = self._backend.answer(request, telling)
        telling.end(finish, prompt, made)
        return telling.times, prompt

    def _count(self, request: Request, times: list[float], prompt: int) -> None:
        last = request.received
        for number, now in enumerate(times):
            (self._metrics.inter_token if number else self._metrics.first_token).observe(now - last)
            last = now
        self._metrics.tokens.inc(len(times))
        self._metrics.prompt_tokens.inc(prompt)
        self._metrics.request.observe(time.perf_counter() - request.received)
        if self.adapters:
            self._metrics.adapter_answers.labels(request.adapter or "").inc()

    def _embed(self, request: Embedding) -> None:
        vectors, read = self._backend.embed(request)
        request.send(Piece(finish="stop", prompt_tokens=read, vectors=vectors))
        self._metrics.prompt_tokens.inc(read)
        self._metrics.request.observe(time.perf_counter() - request.received)
