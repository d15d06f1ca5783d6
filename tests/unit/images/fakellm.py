"""A server with the OpenAI API in the test process, over real HTTP and in virtual time: slow, busy, broken, lying.

What it says to a prompt is a ``Reply``, chosen by the test from the prompt's text and how often it was asked before.
"""

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from aiohttp import web

from tests.unit import virtualnet

T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """One answer. The same reply can be given to streaming and other clients."""

    text: str = "yes"
    delay: float = 0.0
    """Virtual seconds before anything is said."""
    between: float = 0.0
    """And before every further piece of a stream; a piece is a word."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """All that is said, instead of an answer of the right form."""
    usage: object = "counted"
    """What is said about tokens; by default the number of words. None: nothing."""
    finish: str | None = "stop"
    done: bool = True
    """Whether a stream ends as it should."""
    cut: int | None = None
    """The connection breaks after so many pieces, of an answer that is no stream bytes; 0: before the status."""


Choose = Callable[[str, int], Reply]


class FakeLLM:
    """The server; an asynchronous context manager. Its address is known before it runs."""

    def __init__(
        self, choose: Choose | Reply | None = None, *, key: str | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        reply = choose if isinstance(choose, Reply) else Reply()
        self._choose: Choose = choose if callable(choose) else lambda text, time: reply
        self._key = key
        self.ready_after = 0
        """How often it is asked before it is ready."""
        self.models: Callable[[int], web.Response] = lambda time: web.json_response({"object": "list", "data": []})
        self.metrics = web.Response
        """What ``GET /metrics`` says."""
        self.asked: list[tuple[float, dict[str, Any]]] = []
        """When (virtual seconds since the start), and with what body."""
        self.headers: list[dict[str, str]] = []
        """What came with each request, and its query."""
        self.counts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        """Prompts that got a whole answer, and how often."""
        self.together = 0
        """Most requests at a time."""
        self._running = 0
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self._started = 0.0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/ready", self._ready)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()
        self._started = virtualnet.now()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def prompts(self) -> list[str]:
        """The last messages of what was asked, in order."""
        return [body["messages"][-1]["content"] for _, body in self.asked]

    def times(self) -> list[float]:
        """When it was asked."""
        return [round(time, 6) for time, _ in self.asked]

    async def _ready(self, request: web.Request) -> web.StreamResponse:
        self.counts["/ready"] += 1
        return web.Response(status=200 if self.counts["/ready"] > self.ready_after else 503)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.counts["/models"] += 1
        return self.models(self.counts["/models"])

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return self.metrics()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({**request.headers, "query": request.query_string})
        if self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
            return web.json_response({"error": {"message": "who are you?"}}, status=401)
        body = await request.json()
        text = body["messages"][-1]["content"]
        self.asked.append((virtualnet.now() - self._started, body))
        self.counts[text] += 1
        self._running += 1
        self.together = max(self.together, self._running)
        try:
            reply = self._choose(text, self.counts[text])
            answer = await self._say(request, reply, body)
            if reply.status == 200 and reply.body is None and reply.cut is None:
                self.answered[text] += 1
            return answer
        finally:
            self._running -= 1

    async def _say(self, request: web.Request, reply: Reply, asked: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(reply.delay)
        if reply.cut == 0:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()  # nobody reads it
        if reply.status != 200 or reply.body is not None:
            return web.Response(status=reply.status, body=reply.body or b"", headers=reply.headers)
        if asked.get("stream"):
            return await self._stream(request, reply)
        message = {"role": "assistant", "content": reply.text}
        body: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": reply.finish}]}
        words = [len(text.split()) for text in (*(m["content"] for m in asked["messages"]), reply.text)]
        counted = {"prompt_tokens": sum(words[:-1]), "completion_tokens": words[-1]}
        usage = counted if reply.usage == "counted" else reply.usage
        answer = web.Response(body=json.dumps(body | ({} if usage is None else {"usage": usage})).encode(),
                              content_type="application/json")  # fmt: skip
        if reply.cut is not None:
            return await self._half(request, answer, reply.cut)
        return answer

    async def _half(self, request: web.Request, answer: web.Response, length: int) -> web.StreamResponse:
        """The status, the beginning of the body, and then nothing any more."""
        assert isinstance(answer.body, bytes)
        half = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(answer.body))})
        await half.prepare(request)
        await half.write(answer.body[:length])
        assert request.transport is not None
        request.transport.abort()
        return half

    async def _stream(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        pieces = reply.text.split(" ")
        pieces = [piece if number == 0 else f" {piece}" for number, piece in enumerate(pieces)]
        await self._event(answer, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(reply.between)
            if number == reply.cut:
                assert request.transport is not None
                request.transport.abort()
                return answer
            await self._event(answer, {"choices": [{"index": 0, "delta": {"content": piece}}]})
        usage = {"completion_tokens": len(pieces)} if reply.usage == "counted" else reply.usage
        await self._event(answer, {"choices": [], "usage": usage})
        if reply.done:
            await answer.write(b"data: [DONE]\n\n")
        return answer

    async def _event(self, answer: web.StreamResponse, event: object) -> None:
        await answer.write(f"data: {json.dumps(event)}\n\n".encode())


@contextmanager
def served(server: FakeLLM) -> Iterator[FakeLLM]:
    """The server in a thread of its own and in real time, for clients that are elsewhere."""
    stop, loops, ready = asyncio.Event(), [], threading.Event()

    async def serve() -> None:
        async with server:
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


def play(main: Callable[[], Coroutine[Any, Any, T]], *servers: FakeLLM) -> T:
    """Run code against servers, all in one loop, in virtual time."""

    async def together() -> T:
        from contextlib import AsyncExitStack

        async with AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(server)
            return await main()

    return virtualnet.run(together())
