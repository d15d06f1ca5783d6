"""ONNX Runtime GenAI as the backend: prompt in, one token after the other out."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnxruntime_genai as og

from slm_edge.backend import Answered, Embedding, Request, Telling, limits, sampled
from slm_edge.openai import ApiError, too_long
from slm_edge.text import chat_template
from slm_edge.together import Asked, Together, fitting
from slmkit import cores
from slmkit.safety.adapters import listed

HIDDEN = "hidden_states"
"""The output that embeddings are taken from, as the model builder names it."""


class GenAI:
    """A model that the library has loaded."""

    def __init__(self) -> None:
        self.adapters: tuple[str, ...] = ()
        self.length, self.at_once = 0, 1
        self._active: Any = None

    def load(self, folder: Path, config: dict[str, Any], wanted: int | None) -> None:
        """Load the model and its adapters."""
        loaded = og.Config(str(folder))
        loaded.overlay(json.dumps({"search": config.get("search", {})} | cores.runtime_threads(config)))
        self._model = og.Model(loaded)
        self._search = config.get("search", {})
        self._tokenizer = og.Tokenizer(self._model)
        self._template = chat_template(folder)
        self.length = limits(config, wanted)
        files = listed(folder)
        if files:
            self._active = og.Adapters(self._model)
        for name, file in files.items():
            self._active.load(str(file.absolute()), name)
        self.adapters = tuple(files)
        ends = config.get("model", {}).get("eos_token_id")
        self._end = next((end for end in (ends if isinstance(ends, list) else [ends]) if end is not None), None)
        self._embeds = self._has_hidden_states()
        self._together = self._begin_together()

    def _has_hidden_states(self) -> bool:
        """The configuration does not name this output; a run does."""
        generator = self._generator(None, {"do_sample": False, "max_length": 2})
        generator.append_tokens([self._end or 0])
        try:
            generator.get_output(HIDDEN)
        except Exception:  # "was not found": there is no list of outputs to look into, and no type of its own
            return False
        return True

    def _begin_together(self) -> Together | None:
        try:
            together = Together(self._model, self._tokenizer, self._search)
        except RuntimeError as error:
            logging.info("one request at a time: %s", error)
            return None
        self.at_once = together.most
        return together

    def answer(self, request: Request, telling: Telling) -> Answered:
        """Generate until the model or the request ends it."""
        return self._alone(request, telling, *self._asked(request))

    def _alone(self, request: Request, telling: Telling, tokens: Any, end: int) -> Answered:
        prompt = len(tokens)
        generator = self._generator(request.adapter, self._sampling(request) | {"max_length": end})
        generator.append_tokens(tokens)
        stream = self._tokenizer.create_stream()
        made, finish = 0, "length"
        while not telling.over:
            generator.generate_next_token()
            telling.token()
            made += 1
            if generator.is_done() and prompt + made < end:
                finish = "stop"  # the last token was the end of the answer, which has no text
                break
            token = int(generator.get_next_tokens()[0])
            telling.text(stream.decode(token), token)
            if prompt + made >= end:
                break
        return Answered("stop" if telling.stopped else finish, prompt, made, tokens)

    def answer_all(
        self, requests: Sequence[Request], tellings: Sequence[Telling]
    ) -> Iterator[tuple[int, Answered | ApiError]]:
        """Generate for all of them in one batch."""
        asked = []
        for number, request in enumerate(requests):
            try:
                asked.append(Asked(number, request, *self._asked(request)))
            except ApiError as error:
                yield number, error
        for batch in fitting(asked, self.length):
            if self._together is None or len(batch) == 1:
                for one in batch:
                    yield one.number, self._alone(one.request, tellings[one.number], one.tokens, one.end)
                continue
            try:
                yield from self._together.answer(batch, tellings)
            except Exception:  # what the Engine is in the middle of, nobody knows
                self._together, self.at_once = None, 1
                self._together = self._begin_together()
                raise

    def _asked(self, request: Request) -> tuple[Any, int]:
        """The tokens of the prompt, and how many there may be together with the answer's."""
        tokens = self._tokenizer.encode(self._text(request))
        prompt = len(tokens)
        if prompt >= self.length or prompt + (request.limit or 0) > self.length:
            raise too_long(self.length, prompt, request.limit)
        return tokens, prompt + request.limit if request.limit else self.length

    def _text(self, request: Request) -> str:
        if isinstance(request.prompt, str):
            return request.prompt
        try:
            return self._template(request.prompt)
        except Exception as error:  # a template is a program, which can fail in every way
            raise ApiError(400, f"the chat template refuses the messages: {error}", param="messages") from None

    def _generator(self, adapter: str | None, options: dict[str, Any]) -> Any:
        parameters = og.GeneratorParams(self._model)
        parameters.set_search_options(batch_size=1, **options)
        generator = og.Generator(self._model, parameters)
        if adapter is not None:
            generator.set_active_adapter(self._active, adapter)
        return generator

    def _sampling(self, request: Request) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if wanted := sampled(request, self._search):
            temperature, top_p = wanted
            options |= ({"do_sample": True, "top_k": 0, "temperature": temperature, "top_p": top_p} if temperature else
                        {"do_sample": False})  # fmt: skip
        if request.seed is not None:
            options["random_seed"] = request.seed % 2**31
        return options

    def embed(self, request: Embedding) -> tuple[list[list[float]], int]:
        """The state behind the token that ends each text, of length one: as Foundry Local takes it."""
        if not self._embeds:
            raise ApiError(400, f"this model has no embeddings: its {HIDDEN} are no output of its graph", param="model",
                           code="unsupported_model")  # fmt: skip
        vectors: list[list[float]] = []
        read = 0
        for text in request.texts:
            if request.cancelled.is_set():
                break
            tokens = [*map(int, self._tokenizer.encode(text)), *([] if self._end is None else [self._end])]
            if len(tokens) >= self.length:
                raise too_long(self.length, len(tokens), None, param="input")
            generator = self._generator(request.adapter, {"do_sample": False, "max_length": len(tokens) + 1})
            generator.append_tokens(tokens)
            state = generator.get_output(HIDDEN)[0, -1].astype("float32")
            vectors.append((state / (float((state**2).sum()) ** 0.5 or 1.0)).tolist())
            read += len(tokens)
        return vectors, read
