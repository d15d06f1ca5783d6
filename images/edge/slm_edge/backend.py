"""What the engine and a backend say to each other: requests, answers on their way out, and what a backend has to do."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from slm_edge.openai import ApiError
from slm_edge.text import Held

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
    counted: bool = True
    """Whether it is a user's, which the watch over the model counts."""
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
        self.said: list[int] = []
        """Those of them that have a text, where the backend tells which they are."""

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

    def text(self, piece: str, token: int | None = None) -> None:
        """What it says."""
        if token is not None:
            self.said.append(token)
        self._out(self._held.add(piece))

    def end(self, answered: "Answered") -> None:
        """The answer is whole."""
        self._out(self._held.rest())
        self._request.send(Piece("".join(self._whole), answered.finish, answered.prompt_tokens,
                                 answered.completion_tokens))  # fmt: skip

    def _out(self, text: str) -> None:
        if not text:
            return
        if self._request.stream:
            self._request.send(Piece(text))
        else:
            self._whole.append(text)


@dataclass(frozen=True)
class Answered:
    """Why an answer ended, and the tokens of prompt and answer."""

    finish: str
    prompt_tokens: int
    completion_tokens: int
    read: Sequence[int] = ()
    """The prompt's tokens, where the backend tells which they are."""


class Backend(Protocol):
    """What has the model and generates. All but the attributes is for the worker thread."""

    adapters: tuple[str, ...]
    """Names of those that the model came with."""
    length: int
    """Prompt and answer together, in tokens."""
    at_once: int
    """Answers at the same time."""

    def load(self, folder: Path, config: dict[str, Any], wanted: int | None) -> None:
        """Load a model that was looked at, with this configuration. ``wanted``: no longer than this."""

    def answer(self, request: Request, telling: Telling) -> Answered:
        """Generate. Raises ApiError for what is refused."""

    def answer_all(
        self, requests: Sequence[Request], tellings: Sequence[Telling]
    ) -> Iterator[tuple[int, Answered | ApiError]]:
        """Generate for several at once, none of which has an adapter. Each number comes with its outcome as it ends."""

    def embed(self, request: Embedding) -> tuple[list[list[float]], int]:
        """Vectors of texts, and how many tokens were read. Raises ApiError where the model has none."""


def sampled(request: Request, search: dict[str, Any]) -> tuple[float, float] | None:
    """Temperature (0: the likeliest token) and top-p of a request that says one of them: what it does not say is as
    ``search`` has it. None: both are."""
    if request.temperature is None and request.top_p is None:
        return None
    temperature = request.temperature if request.temperature is not None else search.get("temperature") or 1.0
    return float(temperature), float(request.top_p or search.get("top_p") or 1.0)


def limits(config: dict[str, Any], wanted: int | None) -> int:
    """Tokens of prompt and answer together: the model's own default, or what is wanted, within what it can read."""
    search = config.get("search", {})
    context = int(config.get("model", {}).get("context_length") or search.get("max_length") or 2048)
    return min(wanted or int(search.get("max_length") or context), context)
