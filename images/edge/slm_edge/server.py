"""The routes. Everything that is not HTTP is elsewhere."""

import asyncio
import itertools
import os
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from slm_edge.backend import Embedding, Messages, Piece, Request
from slm_edge.channel import pieces
from slm_edge.engine import Engine
from slm_edge.metrics import Metrics
from slm_edge.openai import (
    DONE,
    ApiError,
    Asked,
    Chat,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Text,
    embeddings,
    event,
    parse,
    usage,
)
from slmops.contract import BENCHMARK_HEADER, MONITORED_SECONDS, ServeRun

BODY_LIMIT = 1 << 20
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PROCESS, NUMBERS = uuid.uuid4().hex[:24], itertools.count()
"""Of which the ids of answers are made: to ask the kernel for another 16 random bytes each time takes longer."""
SEPARATOR = ":"
"""Between the name of a model and that of one of its adapters. Neither has it in itself, so no id can mean two of them."""


class Server:
    """One model behind the OpenAI API."""

    def __init__(self, run: ServeRun, engine: Engine, metrics: Metrics) -> None:
        self._run, self._engine, self._metrics = run, engine, metrics
        self._created = int(time.time())
        self.draining = False

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route(CHAT, self.chat, methods=["POST"]),
                Route(COMPLETIONS, self.complete, methods=["POST"]),
                Route("/v1/embeddings", self.embed, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/v1/models/{id:path}", self.model),
                Route("/status", self.status),
                Route("/models/loaded", self.loaded),
                Route("/models/{what:str}/{id:path}", self.load),
                Route("/health", self.health),
                Route("/ready", self.ready),
                Route("/metrics", self.metrics_page),
                Route("/monitoring", self.monitoring),
            ],
            exception_handlers={ApiError: self._error, HTTPException: self._no_route, Exception: self._defect},  # type: ignore[dict-item]
        )

    async def chat(self, http: HttpRequest) -> Response:
        """``POST /v1/chat/completions``."""
        asked = parse(await self._body(http), ChatRequest)
        messages = [{"role": message.role, "content": message.text()} for message in asked.messages]
        return await self._answer(http, asked, asked.limit(), messages, Chat(f"chatcmpl-{_id()}", _now(), asked.model))

    async def complete(self, http: HttpRequest) -> Response:
        """``POST /v1/completions``."""
        asked = parse(await self._body(http), CompletionRequest)
        return await self._answer(
            http, asked, asked.limit(), asked.prompt[0], Text(f"cmpl-{_id()}", _now(), asked.model)
        )

    async def embed(self, http: HttpRequest) -> Response:
        """``POST /v1/embeddings``."""
        asked = parse(await self._body(http), EmbeddingRequest)
        request = Embedding(asked.input, send=_nobody, adapter=self._adapter(asked.model))
        found, _ = await self._begun(http, request)
        self._metrics.answered.inc()
        return JSONResponse(embeddings(asked, found.vectors, found.prompt_tokens))

    def _adapter(self, model: str) -> str | None:
        """The adapter that answers to a name; None: the model alone. Raises ApiError where there is none such."""
        if model.partition(SEPARATOR)[0] != self._run.model_name:
            raise self._unknown(model)
        self._check_ready()
        if model not in (known := self._models()):
            raise self._unknown(model)
        return known[model]

    async def _answer(
        self, http: HttpRequest, asked: Asked, limit: int | None, prompt: str | Messages, shape: Chat
    ) -> Response:
        request = Request(
            prompt=prompt, limit=limit, temperature=asked.temperature, top_p=asked.top_p, seed=asked.seed,
            stops=asked.stops(), send=_nobody, stream=asked.stream, adapter=self._adapter(asked.model),
            counted=_counted(http),
        )  # fmt: skip
        first, rest = await self._begun(http, request)
        self._metrics.answered.inc()
        if asked.stream:  # a refusal would have had a status of its own
            body = self._stream(asked, shape, first, rest, request.counted)
            return StreamingResponse(body, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        counts = usage(first.prompt_tokens, first.completion_tokens)
        return JSONResponse(shape.whole(first.text, first.finish or "stop", counts))

    async def _begun(
        self, http: HttpRequest, request: Request | Embedding
    ) -> tuple[Piece, AsyncGenerator[Piece, None]]:
        """The first piece, and those that follow. Where nobody waits for it any more it is given up, so that the next one
        gets the machine."""
        answer = pieces(self._engine, request, self._run.request_timeout_seconds)
        gone = asyncio.ensure_future(http.receive())

        def hung_up(done: asyncio.Future[Any]) -> None:
            if not done.cancelled():
                request.send(ApiError(499, "the client has hung up", code="client_closed_request"))

        gone.add_done_callback(hung_up)
        try:
            first = await anext(answer)
        except BaseException:
            await answer.aclose()
            raise
        finally:
            gone.cancel()
        if first.finish:
            await answer.aclose()
        return first, answer

    async def _stream(
        self, asked: Asked, shape: Chat, first: Piece, rest: AsyncGenerator[Piece, None], counted: bool
    ) -> AsyncIterator[bytes]:
        if begin := shape.begin():
            yield begin
        piece = first
        try:
            while not piece.finish:
                yield shape.piece(piece.text)
                piece = await anext(rest)
            yield shape.end(piece.finish)
        except ApiError as error:
            if counted:
                self._engine.monitoring.failed(error.status)
            yield event(error.body())
            return
        finally:
            await rest.aclose()
        if asked.stream_options and asked.stream_options.include_usage:
            yield shape.counted(usage(piece.prompt_tokens, piece.completion_tokens))
        yield DONE

    async def models(self, http: HttpRequest) -> Response:
        """``GET /v1/models``."""
        return JSONResponse({"object": "list", "data": [self._card(id) for id in self._models()]})

    async def model(self, http: HttpRequest) -> Response:
        """``GET /v1/models/{id}``."""
        if http.path_params["id"] not in self._models():
            raise self._unknown(http.path_params["id"])
        return JSONResponse(self._card(http.path_params["id"]))

    # --- as Foundry Local's server has it, for its clients

    async def status(self, http: HttpRequest) -> Response:
        """``GET /status``."""
        return JSONResponse({"endpoints": [str(http.base_url).rstrip("/")], "modelCachePath": self._run.model_path,
                             "pid": os.getpid()})  # fmt: skip

    async def loaded(self, http: HttpRequest) -> Response:
        """``GET /models/loaded``."""
        return JSONResponse(list(self._models()) if self._engine.ready.is_set() else [])

    async def load(self, http: HttpRequest) -> Response:
        """``GET /models/load/{id}`` and ``/models/unload/{id}``: what is served is loaded, and stays."""
        what, id = http.path_params["what"], http.path_params["id"]
        if what not in ("load", "unload"):
            raise HTTPException(404)
        if id not in self._models():
            raise self._unknown(id)
        self._check_ready()
        if what == "unload":
            raise ApiError(
                400, "this server has one model, for as long as it runs", param="model", code="not_supported"
            )
        return JSONResponse({"status": "loaded"})

    # --- all

    def _models(self) -> dict[str, str | None]:
        """The adapter of each model that can be asked for, by its id: of the name alone what this server is set to."""
        name = self._run.model_name
        return {
            name: self._run.adapter,
            **{f"{name}{SEPARATOR}{adapter}": adapter for adapter in self._engine.adapters},
        }

    def _card(self, id: str) -> dict[str, Any]:
        """``parent``: of an adapter, the model that it belongs to."""
        parent = {"parent": self._run.model_name} if id != self._run.model_name else {}
        return {"id": id, "object": "model", "created": self._created, "owned_by": "slmops",
                "revision": self._run.revision, **parent}  # fmt: skip

    def _unknown(self, asked: str) -> ApiError:
        there = ", ".join(f"`{id}`" for id in self._models())
        return ApiError(
            404, f"The model `{asked}` does not exist; there is {there}", param="model", code="model_not_found"
        )

    async def health(self, http: HttpRequest) -> Response:
        """Liveness: a model that cannot be loaded is worth a restart, one that loads still is not."""
        if self._engine.failure:
            return JSONResponse({"status": "failed", "message": self._engine.failure}, 500)
        return JSONResponse({"status": "ok"})

    async def ready(self, http: HttpRequest) -> Response:
        """Readiness: once a token was generated, and until the end is announced."""
        try:
            self._check_ready()
        except ApiError as error:
            return JSONResponse(error.body(), error.status)
        return JSONResponse({"status": "ready"})

    async def metrics_page(self, http: HttpRequest) -> Response:
        """``GET /metrics``."""
        return PlainTextResponse(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def monitoring(self, http: HttpRequest) -> Response:
        """``GET /monitoring?seconds=…``: what was asked and answered in the last so long, in counts alone."""
        text = http.query_params.get("seconds", "3600")
        if not text.isdecimal() or not 1 <= (seconds := int(text[:9])) <= MONITORED_SECONDS:
            raise ApiError(400, f"seconds: a whole number from 1 to {MONITORED_SECONDS} is expected", param="seconds")
        return Response(self._engine.monitoring.served(seconds).model_dump_json(), media_type="application/json")

    def _check_ready(self) -> None:
        if self.draining:
            raise ApiError(503, "the server is stopping", code="stopping", retry_after=1)
        if not self._engine.ready.is_set():
            raise ApiError(503, self._engine.failure or "the model is being loaded", code="not_ready", retry_after=1)

    async def _body(self, http: HttpRequest) -> bytes:
        body = bytearray()
        async for part in http.stream():
            body += part
            if len(body) > BODY_LIMIT:
                raise ApiError(413, f"the body is larger than {BODY_LIMIT} bytes", code="too_large")
        return bytes(body)

    async def _error(self, http: HttpRequest, error: ApiError) -> Response:
        self._metrics.requests.labels(str(error.status)).inc()
        if http.url.path in (CHAT, COMPLETIONS) and _counted(http):
            self._engine.monitoring.failed(error.status)
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        return JSONResponse(error.body(), error.status, headers=headers)

    async def _no_route(self, http: HttpRequest, error: HTTPException) -> Response:
        return await self._error(http, ApiError(error.status_code, f"{http.method} {http.url.path}: {error.detail}"))

    async def _defect(self, http: HttpRequest, error: Exception) -> Response:
        return await self._error(http, ApiError(500, "the server failed; its log says more", code="internal_error"))


def _counted(http: HttpRequest) -> bool:
    """Whether a request is a user's, not a benchmark's."""
    return BENCHMARK_HEADER not in http.headers


def _nobody(piece: Piece | ApiError) -> None:
    """Until somebody waits for the answer."""


def _id() -> str:
    return f"{PROCESS}{next(NUMBERS):08x}"


def _now() -> int:
    return int(time.time())
