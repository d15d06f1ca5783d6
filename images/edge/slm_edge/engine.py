"""The model in memory: prompt in, tokens out, one request after the other in one worker thread.

One at a time is what a small model on a small CPU is fastest with; the queue in front is bounded, so that a client is told
to come back rather than kept waiting for ever.
"""

import asyncio
import contextlib
import json
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import onnxruntime_genai as og
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from slm_edge.door import look
from slm_edge.metrics import Metrics
from slm_edge.monitoring import Monitoring
from slm_edge.openai import ApiError
from slmkit.run import RunFailed
from slmkit.safety.adapters import listed

NEEDED = "genai_config.json"


@dataclass
class Request:
    """One generation: what is asked, and the channel that tokens come back on."""

    prompt: str
    limit: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stops: list[str]
    send: Callable[["Piece | ApiError"], None]
    adapter: str | None = None
    """None: the model alone."""
    counted: bool = True
    """Whether it is a user's, which the watch over the model counts."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    received: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Piece:
    """A token's text; the last one has a reason to finish and the counts."""

    text: str = ""
    finish: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


def find_model(root: Path) -> Path:
    """The folder below ``root`` that holds a GenAI model."""
    found = sorted(root.rglob(NEEDED))
    if len(found) != 1:
        raise FileNotFoundError(f"{root}: exactly one {NEEDED} is expected below it, found {len(found)}")
    return found[0].parent


class Engine:
    """Loads a model and generates."""

    def __init__(
        self, root: Path, metrics: Metrics, *, max_queue: int, max_length: int | None,
        look: Callable[[Path], None] = look, failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:  # fmt: skip
        self._root, self._look, self._failed = root, look, failed
        self._metrics = metrics
        self.monitoring = Monitoring()
        self._max_length = max_length
        self._queue: queue.Queue[Request | None] = queue.Queue(max_queue)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.ready = threading.Event()
        """Set once a token was generated."""
        self.failure: str | None = None
        self.adapters: tuple[str, ...] = ()
        """Names of those that the model came with, once it is ready."""

    def start(self) -> None:
        """Load and warm up in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more; what is queued is finished."""
        with contextlib.suppress(queue.Full):  # whoever is in a full queue has been waiting for longer than we may
            self._queue.put_nowait(None)

    def submit(self, request: Request) -> None:
        """Queue a request. Raises ApiError 429 when the queue is full."""
        try:
            self._queue.put_nowait(request)
        except queue.Full:
            raise ApiError(429, "the queue is full, try again", code="queue_full", retry_after=1) from None
        self._metrics.queued.set(self._queue.qsize())

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt as the model's chat template has it."""
        try:
            return self._template(messages)
        except Exception as error:  # a template is a program, which can fail in every way
            raise ApiError(400, f"the chat template refuses the messages: {error}", param="messages") from None

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
                self._generate(request)
            except ApiError as error:
                request.send(error)
            except Exception as error:
                request.send(ApiError(500, f"generation failed: {type(error).__name__}", code="generation_failed"))
            finally:
                self._metrics.running.dec()

    def _load(self) -> None:
        folder = find_model(self._root)
        self._look(folder)
        self.config = json.loads((folder / NEEDED).read_text())
        self._model = og.Model(str(folder))
        self._tokenizer = og.Tokenizer(self._model)
        self._template = chat_template(folder)
        search = self.config.get("search", {})
        context = int(self.config.get("model", {}).get("context_length") or search.get("max_length") or 2048)
        self.max_length = min(self._max_length or int(search.get("max_length") or context), context)
        files = listed(folder)
        self._active: Any = og.Adapters(self._model) if files else None
        for name, file in files.items():
            self._active.load(str(file.absolute()), name)
        prompt = self._template([{"role": "user", "content": "hello"}])
        for adapter in (None, *files):  # so that the first request with each finds it working
            warm = Request(prompt, 1, 0.0, None, None, [], lambda piece: None, adapter)
            self._generate(warm, count=False)
        self.adapters = tuple(files)

    def _generate(self, request: Request, count: bool = True) -> None:
        begun = time.perf_counter()
        tokens = self._tokenizer.encode(request.prompt)
        prompt = len(tokens)
        if prompt >= self.max_length:
            raise ApiError(400, f"This model's maximum context length is {self.max_length} tokens. However, your messages "
                           f"resulted in {prompt} tokens. Please reduce the length of the messages.", param="messages",
                           code="context_length_exceeded")  # fmt: skip
        end = min(self.max_length, prompt + request.limit) if request.limit else self.max_length
        generator = og.Generator(self._model, self._parameters(request, end))
        if request.adapter is not None:
            generator.set_active_adapter(self._active, request.adapter)
        generator.append_tokens(tokens)
        stream = self._tokenizer.create_stream()
        made, text, finish = 0, Held(request.stops), "length"
        first, last = 0.0, request.received
        said: list[int] = []
        while not request.cancelled.is_set():
            generator.generate_next_token()
            now = time.perf_counter()
            if count:
                (self._metrics.inter_token if made else self._metrics.first_token).observe(now - last)
            first, last, made = first or now - request.received, now, made + 1
            if generator.is_done() and prompt + made < end:
                finish = "stop"  # the last token was the end of the answer, which has no text
                break
            said.append(int(generator.get_next_tokens()[0]))
            piece = text.add(stream.decode(said[-1]))
            if piece:
                request.send(Piece(piece))
            if text.stopped:
                finish = "stop"
                break
            if prompt + made >= end:
                break
        if rest := text.rest():
            request.send(Piece(rest))
        if count:
            seconds = time.perf_counter() - request.received
            self._metrics.tokens.inc(made)
            self._metrics.prompt_tokens.inc(prompt)
            self._metrics.request.observe(seconds)
            if request.counted and not request.cancelled.is_set():
                self.monitoring.answered(tokens, said, made, finish, first_token=first, seconds=seconds,
                                         waited=begun - request.received)  # fmt: skip
            if self.adapters:
                self._metrics.adapter_answers.labels(request.adapter or "").inc()
        request.send(Piece(finish=finish, prompt_tokens=prompt, completion_tokens=made))

    def _parameters(self, request: Request, end: int) -> Any:
        parameters = og.GeneratorParams(self._model)
        options: dict[str, Any] = {"max_length": end, "batch_size": 1}
        if request.temperature == 0:
            options["do_sample"] = False
        elif request.temperature is not None or request.top_p is not None:
            options |= {"do_sample": True, "top_k": 0, "temperature": request.temperature or 1.0,
                        "top_p": request.top_p or 1.0}  # fmt: skip
        if request.seed is not None:
            options["random_seed"] = request.seed % 2**31
        parameters.set_search_options(**options)
        return parameters


class Held:
    """Text on its way out, held back as long as it could be the beginning of a stop text."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = stops
        self._text = ""
        self.stopped = False

    def add(self, piece: str) -> str:
        """Take in a piece; what may go out."""
        self._text += piece
        found = [(at + len(stop), at) for stop in self._stops if (at := self._text.find(stop)) >= 0]
        if found:  # what is complete first ends the answer, however the text was cut into pieces
            self.stopped = True
            self._text, out = "", self._text[: min(found)[1]]
            return out
        keep = max((n for stop in self._stops for n in range(1, len(stop)) if self._text.endswith(stop[:n])), default=0)
        cut = len(self._text) - keep
        out, self._text = self._text[:cut], self._text[cut:]
        return out

    def rest(self) -> str:
        """What is left at the end."""
        out, self._text = self._text, ""
        return "" if self.stopped else out


def chat_template(folder: Path) -> Callable[[list[dict[str, str]]], str]:
    """The model's own template, in a sandbox: a template is a program, and this one came with the model."""
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    settings = json.loads(config.read_text()) if config.exists() else {}
    source = file.read_text() if file.exists() else settings.get("chat_template")
    if not isinstance(source, str):
        raise FileNotFoundError(f"{folder} holds no chat template")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    # What transformers gives to templates, and they therefore count on.
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    template = environment.from_string(source)
    special = {key: _content(settings.get(key)) for key in ("bos_token", "eos_token")}

    def render(messages: list[dict[str, str]]) -> str:
        return template.render(messages=messages, add_generation_prompt=True, **special)

    return render


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


async def pieces(engine: Engine, request: Request, limit: float) -> AsyncIterator[Piece]:
    """The pieces of a request as they come, the last one within ``limit`` seconds; closing the iterator cancels the
    generation. Each wait has the deadline of the whole: a timeout around all of them would end the task that took the first
    piece, which is not the one that takes the others."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    channel: asyncio.Queue[Piece | ApiError] = asyncio.Queue()

    def send(piece: Piece | ApiError) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends, and nobody listens any more
            loop.call_soon_threadsafe(channel.put_nowait, piece)

    request.send = send
    engine.submit(request)
    try:
        while True:
            async with asyncio.timeout_at(deadline):
                piece = await channel.get()
            if isinstance(piece, ApiError):
                raise piece
            if loop.time() > deadline:  # it was there already, so there was nothing to wait for
                raise TimeoutError
            yield piece
            if piece.finish:
                return
    except TimeoutError:
        raise ApiError(504, f"not done within {limit:.0f} s", code="timeout") from None
    finally:
        request.cancelled.set()
