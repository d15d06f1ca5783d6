"""ONNX Runtime GenAI's Engine, as its static batches behave on CPUs: what waits when a batch begins is in it, a run makes a
token for each, and the end of an answer is an event without a token."""

import enum
from types import SimpleNamespace
from typing import Any

from tests.unit.images.fakeedge import END, FakeGenAI

MOST = 3


class Flags(enum.IntFlag):
    """As in the library."""

    NONE, TOKEN, TURN_FINISHED, CAPACITY_BLOCKED, FAILED = 0, 1, 2, 4, 8


Reason = enum.Enum("Reason", ["NONE", "EOS", "MAX_GENERATED_TOKENS", "MAX_SESSION_TOKENS", "CANCELLED", "FAILED"])


class FakeEngine:
    """Batches over a fake library. ``batches``: the prompts of each."""

    def __init__(self, library: FakeGenAI) -> None:
        self.library = library
        self.batches: list[list[str]] = []
        self.made = 0
        """Engines so far."""
        self.fails: dict[str, str] = {}
        """Prompts that fail, or by ``*`` all that is under way, and with which words."""
        library.Engine = self._engine
        library.EngineEventFlags, library.FinishReason = Flags, Reason  # type: ignore[attr-defined]
        library.RequestOptions = _Options  # type: ignore[attr-defined]
        library.TurnOptions = lambda request: _Options()  # type: ignore[attr-defined]

    def _engine(self, model: str) -> "_Engine":
        self.made += 1
        return _Engine(self)


class _Options:
    def __init__(self) -> None:
        self.said: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda value: self.said.__setitem__(name.removeprefix("set_"), value)


class _Engine:
    def __init__(self, fake: FakeEngine) -> None:
        self.fake = fake
        self.waiting: list[_Request] = []
        self.batch: list[_Request] = []

    def get_capabilities(self) -> Any:
        return SimpleNamespace(configured_max_batch_size=MOST)

    def create_event_buffer(self, capacity: int) -> Any:
        return object()

    def create_request(self, *, options: _Options | None = None) -> "_Request":
        return _Request(self, options.said["max_session_tokens"] if options else 0)

    def run(self, buffer: object) -> list[Any]:
        if words := self.fake.fails.get("*"):
            raise RuntimeError(words)
        self.batch = [request for request in self.batch if not request.over]
        if not self.batch:
            assert len(self.waiting) <= MOST
            self.batch, self.waiting = self.waiting, []
            self.fake.batches.append([request.prompt for request in self.batch])
        return [event for request in self.batch if (event := request.step())]


class _Request:
    def __init__(self, engine: _Engine, end: int) -> None:
        self._engine, self._end = engine, end
        self.closed = self.over = self._cancelled = False

    def begin_turn(self, tokens: Any, options: _Options) -> int:
        library = self._engine.fake.library
        self.prompt = "".join(map(chr, tokens))
        library.prompts.append(self.prompt)
        library.options.append(options.said)
        assert len(tokens) + options.said["max_generated_tokens"] <= self._end
        self._left = options.said["max_generated_tokens"]
        self._coming = [*map(ord, library.answer(self.prompt)), END]
        self._engine.waiting.append(self)
        return 7

    def cancel_turn(self, id: int) -> bool:
        assert id == 7
        self._cancelled = True
        return True

    def close(self) -> None:
        assert not self.closed
        self.closed = True

    def step(self) -> Any:
        if self.over:
            return None
        if self._cancelled:
            return self._event(Flags.TURN_FINISHED, None, Reason.CANCELLED)
        if words := self._engine.fake.fails.get(self.prompt):
            return self._event(Flags.FAILED, None, Reason.FAILED, SimpleNamespace(name=words))
        self._engine.fake.library.take()
        token = self._coming.pop(0)
        self._left -= 1
        if token == END:
            return self._event(Flags.TURN_FINISHED, None, Reason.EOS)
        if not self._left:
            return self._event(Flags.TOKEN | Flags.TURN_FINISHED, token, Reason.MAX_GENERATED_TOKENS)
        return self._event(Flags.TOKEN, token, Reason.NONE)

    def _event(self, flags: Flags, token: int | None, reason: Reason, error: Any = None) -> Any:
        self.over = bool(flags & (Flags.TURN_FINISHED | Flags.FAILED))
        return SimpleNamespace(request=self, flags=flags, token=token, finish_reason=reason, error_code=error)
