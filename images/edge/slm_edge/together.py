"""Several answers at once: ONNX Runtime GenAI's Engine takes the weights through the processor once for a token of each.

What it has for CPUs is static: a batch has the requests that waited when it began, and the next one begins when all of them
are answered. It knows no adapters.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime_genai as og

from slm_edge.backend import Answered, Request, Telling, sampled
from slm_edge.openai import ApiError

EVENTS = 64


class Asked(NamedTuple):
    """A request of a batch."""

    number: int
    """Which one of all that were asked."""
    request: Request
    tokens: Any
    """Of its prompt."""
    end: int
    """How many there may be together with the answer's."""


def fitting(asked: Sequence[Asked], length: int) -> list[list[Asked]]:
    """Batches, in order, that take no more memory than one request that fills the context: the cache of a batch has as
    many tokens for each as the longest may have."""
    batches: list[list[Asked]] = []
    for one in asked:
        last = batches[-1] if batches else []
        if last and (len(last) + 1) * max(each.end for each in (*last, one)) <= length:
            last.append(one)
        else:
            batches.append([one])
    return batches


class Together:
    """The Engine of a model. Of one thread, as the library wants it."""

    def __init__(self, model: Any, tokenizer: Any, search: dict[str, Any]) -> None:
        """Raises RuntimeError for a model that the Engine cannot take."""
        self._tokenizer, self._search = tokenizer, search
        self._engine = og.Engine(model)
        self._events = self._engine.create_event_buffer(EVENTS)
        self.most = int(self._engine.get_capabilities().configured_max_batch_size)
        """Requests in a batch."""
        self._engine.create_request().close()

    def answer(self, batch: Sequence[Asked], tellings: Sequence[Telling]) -> Iterator[tuple[int, Answered | ApiError]]:
        """Generate for all until the last has ended; each is told as soon as it has."""
        turns = [self._begin(one, tellings[one.number]) for one in batch]
        while any(not turn.over for turn in turns):
            for turn in turns:
                turn.give_up()
            for event in self._engine.run(self._events):
                turn = next(turn for turn in turns if turn.request == event.request)
                if outcome := turn.hear(event):
                    yield turn.number, outcome

    def _begin(self, one: Asked, telling: Telling) -> "_Turn":
        options = og.RequestOptions()
        options.set_max_session_tokens(one.end)
        made = self._engine.create_request(options=options)
        turn = og.TurnOptions(made)
        turn.set_max_generated_tokens(one.end - len(one.tokens))
        request = one.request
        if wanted := sampled(request, self._search):
            temperature, top_p = wanted
            turn.set_do_sample(temperature > 0)
            if temperature:
                turn.set_top_k(0)
                turn.set_temperature(temperature)
                turn.set_top_p(top_p)
        if request.seed is not None:
            turn.set_seed(request.seed % 2**31)
        id = made.begin_turn(np.asarray(one.tokens, np.int32), turn)
        return _Turn(one.number, made, id, telling, self._tokenizer.create_stream(), one.tokens)


class _Turn:
    """One of a batch."""

    def __init__(self, number: int, request: Any, id: int, telling: Telling, stream: Any, read: Any) -> None:
        self.number, self.request = number, request
        self._id, self._telling, self._stream, self._read = id, telling, stream, read
        self._made = 0
        self._given_up = self.over = False

    def give_up(self) -> None:
        """End it where nothing more is wanted."""
        if self._telling.over and not self.over and not self._given_up:
            self._given_up = True
            self.request.cancel_turn(self._id)

    def hear(self, event: Any) -> Answered | ApiError | None:
        """Take in what has happened; how it ended, if it has."""
        if event.flags & og.EngineEventFlags.TOKEN and not self._given_up:
            self._count()
            self._telling.text(self._stream.decode(event.token), int(event.token))
        if event.flags & og.EngineEventFlags.FAILED:
            self._end()
            return ApiError(500, f"generation failed: {event.error_code.name}", code="generation_failed")
        if not event.flags & og.EngineEventFlags.TURN_FINISHED:
            return None
        self._end()
        if event.finish_reason == og.FinishReason.EOS:
            self._count()  # the end of an answer is a token, which has no text
        ended = event.finish_reason == og.FinishReason.EOS or self._telling.stopped
        return Answered("stop" if ended else "length", len(self._read), self._made, self._read)

    def _count(self) -> None:
        self._telling.token()
        self._made += 1

    def _end(self) -> None:
        self.over = True
        self.request.close()
