"""Foundry Local as the backend: the official package answers in this process, from the same model folder.

Its own web server has neither readiness nor metrics nor an end to its queue, and asks a catalogue on the network; so what
serves is ours, and what renders, generates and samples is the package's. It knows no adapters, and no texts without a chat.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foundry_local_sdk import (
    CatalogType,
    ChatSession,
    Configuration,
    FoundryLocalManager,
    ModelInfoBuilder,
)
from foundry_local_sdk import Request as Asked
from foundry_local_sdk.exception import FoundryLocalException
from foundry_local_sdk.items import TextItem, TextItemType
from foundry_local_sdk.session_types import FinishReason

from slm_edge.backend import Answered, Embedding, Request, Telling, limits
from slm_edge.openai import ApiError, too_long
from slmkit.run import RunFailed
from slmkit.safety.adapters import listed
from slmops.contract import Reason

NOBODY = "http://127.0.0.1:9/asset-gallery/v1.0/models"
"""In place of the public catalogue, which is no part of this."""
NAME = re.compile(r"[^:]+:[0-9]+")
"""As the package wants it: a name and a version."""
OTHER = "use the engine OnnxRuntimeGenAI"


class Foundry:
    """A model that the package has loaded."""

    def __init__(self) -> None:
        self.adapters: tuple[str, ...] = ()
        self.length, self.at_once = 0, 1

    def load(self, folder: Path, config: dict[str, Any], wanted: int | None) -> None:
        """Register the folder, which is only read, and load the model."""
        if names := listed(folder):
            raise RunFailed(Reason.INVALID_CONFIGURATION, f"Foundry Local knows no adapters, and the model has "
                            f"{', '.join(names)}: {OTHER}")  # fmt: skip
        self.length = limits(config, wanted)
        place = tempfile.mkdtemp()
        FoundryLocalManager.initialize(Configuration(
            app_name="slmops", app_data_dir=place, model_cache_dir=f"{place}/models", logs_dir=f"{place}/logs",
            catalog_urls=[(NOBODY, None)], disable_nonessential_telemetry=True,
        ))  # fmt: skip
        catalog = FoundryLocalManager.instance.get_catalog(CatalogType.LOCAL)
        with ModelInfoBuilder() as about:
            about.set_string_property("task", "chat-completion")
            self._model = catalog.register_model(folder, self._name(folder), about)
        self._model.load()

    def _name(self, folder: Path) -> str:
        """What the image says that it is called there."""
        file = folder / "inference_model.json"
        name = json.loads(file.read_text()).get("Name") if file.is_file() else None
        return name if isinstance(name, str) and NAME.fullmatch(name) else f"{folder.name}:1"

    def answer(self, request: Request, telling: Telling) -> Answered:
        """Have the package generate."""
        if isinstance(request.prompt, str):
            raise ApiError(400, f"Foundry Local continues no texts: ask for a chat, or {OTHER}", code="not_supported")
        with ChatSession(self._model) as session:
            limit = self._limit(session, request)
            with self._asked(request, limit) as asked:
                session.set_streaming(True)
                with session.process_streaming_request(asked) as stream:
                    for item in stream:
                        if telling.over:
                            break  # which cancels it
                        for choice in json.loads(item.text).get("choices", ()):
                            if text := (choice.get("delta") or {}).get("content"):
                                telling.token()
                                telling.text(text)
                    return self._answered(stream, telling, limit)

    def _limit(self, session: ChatSession, request: Request) -> tuple[int, int]:
        """Tokens of the prompt, and the most of the answer: the package has a number of its own, which is the same for all
        models, where none is named."""
        try:
            with self._asked(request, (0, 1)) as asked:
                prompt = int(session.preflight_request(asked).prompt_tokens)
        except FoundryLocalException as error:
            raise ApiError(400, f"Foundry Local refuses the messages: {_words(error)}", param="messages") from None
        if prompt >= self.length or prompt + (request.limit or 0) > self.length:
            raise too_long(self.length, prompt, request.limit)
        return prompt, request.limit or self.length - prompt

    def _asked(self, request: Request, limit: tuple[int, int]) -> Asked:
        wanted: dict[str, Any] = {
            "model": self._model.id,
            "messages": request.prompt,
            "stream": True,
            "max_tokens": limit[1],
        }
        wanted |= {name: value for name, value in (("temperature", request.temperature), ("top_p", request.top_p))
                   if value is not None}  # fmt: skip
        if request.seed is not None:
            wanted["seed"] = request.seed % 2**31
        return Asked().add_item(TextItem(json.dumps(wanted), TextItemType.OPENAI_JSON))

    def _answered(self, stream: Any, telling: Telling, limit: tuple[int, int]) -> Answered:
        if telling.over:
            return Answered("stop" if telling.stopped else "length", limit[0], len(telling.times))
        with stream.final_response as last:
            usage = last.get_usage()
            finish = "length" if last.finish_reason == FinishReason.LENGTH else "stop"
            return Answered(finish, usage.prompt_tokens, usage.completion_tokens)

    def answer_all(
        self, requests: Sequence[Request], tellings: Sequence[Telling]
    ) -> Iterator[tuple[int, Answered | ApiError]]:
        """Nobody asks: ``at_once``."""
        raise NotImplementedError

    def embed(self, request: Embedding) -> tuple[list[list[float]], int]:
        """None."""
        raise ApiError(400, f"this server has no embeddings: {OTHER}", param="model", code="unsupported_model")


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:512]
