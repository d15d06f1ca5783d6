"""The model in memory: requests in, pieces of answers out, one after the other in one worker thread.

One at a time is what a small model on a small CPU is fastest with (docs/decisions.md has the figures); the queue in front
is bounded, so that a client is told to come back rather than kept waiting for ever. What answers is a backend.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

from slm_edge.backend import Answered, Backend, Embedding, Messages, Piece, Request, Telling
from slm_edge.door import look
from slm_edge.metrics import Metrics
from slm_edge.monitoring import Monitoring
from slm_edge.openai import ApiError
from slmkit.run import RunFailed
from slmops.contract import Reason, ServeDefaults

NEEDED = "genai_config.json"


def find_model(root: Path) -> Path:
    """The folder below ``root`` that holds a GenAI model."""
    found = sorted(root.rglob(NEEDED))
    if len(found) != 1:
        raise FileNotFoundError(f"{root}: exactly one {NEEDED} is expected below it, found {len(found)}")
    return found[0].parent


class Engine:
    """Loads a model and answers."""

    def __init__(
        self, root: Path, metrics: Metrics, backend: Backend, *, max_queue: int, max_length: int | None,
        adapter: str | None = None, defaults: ServeDefaults | None = None,
        look: Callable[[Path], None] = look, failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:  # fmt: skip
        self._root, self._look, self._failed = root, look, failed
        self._metrics, self._backend = metrics, backend
        self.monitoring = Monitoring()
        self._max_length, self._adapter = max_length, adapter
        self._defaults = defaults.model_dump(exclude_none=True) if defaults else {}
        self._queue: queue.SimpleQueue[Request | Embedding | None] = queue.SimpleQueue()
        self._max_queue = max_queue
        self._kept: list[Request | Embedding | None] = []
        """What was taken from the queue and has to wait for its own turn."""
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
        self._queue.put(None)

    def submit(self, request: Request | Embedding) -> None:
        """Queue a request. Raises ApiError 429 when the queue is full. For one thread alone: nobody else fills it."""
        if self._queue.qsize() + len(self._kept) >= self._max_queue:
            raise ApiError(429, "the queue is full, try again", code="queue_full", retry_after=1)
        self._queue.put(request)
        self._metrics.queued.set(self._queue.qsize() + len(self._kept))

    # --- the worker

    def _work(self) -> None:
        try:
            self._load()
        except Exception as error:
            self.failure = f"{error.reason if isinstance(error, RunFailed) else type(error).__name__}: {error}"
            self._failed(error)
            return
        self.ready.set()
        while (first := self._take()) is not None:
            beside = list(self._beside(first))
            self._metrics.queued.set(self._queue.qsize() + len(self._kept))
            self._metrics.running.set(1 + len(beside))
            if beside and _shares(first):
                self._serve_all([first, *beside])
            else:
                self._serve(first)
            self._metrics.running.set(0)

    def _take(self) -> Request | Embedding | None:
        """The next one that somebody still waits for. None: the end."""
        while True:
            found = self._kept.pop() if self._kept else self._queue.get()
            if found is None or not found.cancelled.is_set():
                return found

    def _beside(self, first: Request | Embedding) -> Iterator[Request]:
        """Those that wait behind it and can be answered in the same time, in their order."""
        free = self._backend.at_once - 1 if _shares(first) else 0
        while free and not self._queue.empty():  # nobody else takes from it
            found = self._queue.get()
            if found is not None and found.cancelled.is_set():
                continue
            if not _shares(found):
                self._kept.append(found)
                return
            free -= 1
            yield found

    def _serve(self, request: Request | Embedding) -> None:
        try:
            if isinstance(request, Embedding):
                self._embed(request)
            else:
                self._answer(request)
        except ApiError as error:
            request.send(error)
        except Exception as error:
            request.send(_failed(error))

    def _serve_all(self, requests: list[Request]) -> None:
        tellings, begun = [Telling(request) for request in requests], time.perf_counter()
        left = dict(enumerate(requests))
        try:
            for number, outcome in self._backend.answer_all(requests, tellings):
                request = left.pop(number)
                if isinstance(outcome, ApiError):
                    request.send(outcome)
                else:
                    self._count(request, tellings[number], outcome, begun)
                    tellings[number].end(outcome)
                self._metrics.running.set(len(left))
        except Exception as error:
            for request in left.values():
                request.send(_failed(error))

    def _load(self) -> None:
        folder = find_model(self._root)
        self._look(folder)
        self._backend.load(folder, self._config(folder), self._max_length)
        if self._adapter not in (None, *self._backend.adapters):
            there = ", ".join(self._backend.adapters) or "none"
            raise RunFailed(Reason.INVALID_CONFIGURATION, f"spec.pools[].adapter: the model image has no adapter "
                            f"{self._adapter}, it has {there}")  # fmt: skip
        hello: Messages = [{"role": "user", "content": "hello"}]
        for adapter in (None, *self._backend.adapters):  # so that the first request with each finds it working
            warm = Request(hello, 1, 0.0, None, None, [], lambda piece: None, False, adapter)
            self._backend.answer(warm, Telling(warm))
        self.adapters = self._backend.adapters

    def _config(self, folder: Path) -> dict[str, Any]:
        """The model's own, with the defaults that this server has instead."""
        config: dict[str, Any] = json.loads((folder / NEEDED).read_text())
        wanted = self._defaults | ({"do_sample": t > 0} if (t := self._defaults.get("temperature")) is not None else {})
        return config | {"search": config.get("search", {}) | wanted}

    def _answer(self, request: Request) -> None:
        telling, begun = Telling(request), time.perf_counter()
        answered = self._backend.answer(request, telling)
        self._count(request, telling, answered, begun)  # who has his answer finds it counted
        telling.end(answered)

    def _count(self, request: Request, telling: Telling, answered: Answered, begun: float) -> None:
        times, seconds = telling.times, time.perf_counter() - request.received
        self._metrics.first_token.add([now - request.received for now in times[:1]])
        self._metrics.inter_token.add([now - last for last, now in pairwise(times)])
        self._metrics.tokens.inc(answered.completion_tokens)
        self._metrics.prompt_tokens.inc(answered.prompt_tokens)
        self._metrics.request.add([seconds])
        if request.counted and not request.cancelled.is_set():
            first = times[0] - request.received if times else seconds
            self.monitoring.answered(answered, telling.said, first_token=first, seconds=seconds,
                                     waited=begun - request.received)  # fmt: skip
        if self.adapters:
            self._metrics.adapter_answers.labels(request.adapter or "").inc()

    def _embed(self, request: Embedding) -> None:
        vectors, read = self._backend.embed(request)
        self._metrics.prompt_tokens.inc(read)
        self._metrics.request.add([time.perf_counter() - request.received])
        request.send(Piece(finish="stop", prompt_tokens=read, vectors=vectors))


def _shares(request: Request | Embedding | None) -> TypeGuard[Request]:
    return isinstance(request, Request) and request.adapter is None


def _failed(error: Exception) -> ApiError:
    return ApiError(500, f"generation failed: {type(error).__name__}", code="generation_failed")
