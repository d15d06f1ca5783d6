"""Requests, answers and errors as the OpenAI API has them. Pure: no model, no HTTP."""

import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError


class ApiError(Exception):
    """An answer that is not the wanted one, in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def too_long(length: int, prompt: int, limit: int | None, param: str = "messages") -> ApiError:
    """What does not fit into the context, in OpenAI's words."""
    asked = (f"you requested {prompt + limit} tokens ({prompt} in the {param}, {limit} in the completion). Please reduce "
             f"the length of the {param} or completion." if limit and prompt < length else
             f"your {param} resulted in {prompt} tokens. Please reduce the length of the {param}.")  # fmt: skip
    return ApiError(400, f"This model's maximum context length is {length} tokens. However, {asked}", param=param,
                    code="context_length_exceeded")  # fmt: skip


def _parts(content: object) -> object:
    if not isinstance(content, str | list):
        raise ValueError("text, or a list of text parts, is expected")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _texts(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


class Message(BaseModel):
    """One message of a conversation; text only."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "user", "assistant", "developer", "tool"]
    content: Annotated[list[dict[str, Any]], BeforeValidator(_parts)]

    def text(self) -> str:
        """The content as text. Raises ApiError on images and other parts."""
        if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in self.content):
            raise ApiError(400, "this model reads text only", param="messages", code="unsupported_content")
        return "".join(part["text"] for part in self.content)


Stop = Annotated[str, Field(max_length=256)]
"""Every token of an answer is compared with every stop text, so there are few and they are short."""


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False


class Asked(BaseModel):
    """What both ways of asking have. Unknown fields are ignored, as OpenAI's clients expect of servers."""

    model_config = ConfigDict(extra="ignore")
    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: Annotated[list[Stop], Field(max_length=4), BeforeValidator(_texts)] | None = None
    seed: int | None = None
    n: Literal[1] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [text for text in self.stop or [] if text]


class ChatRequest(Asked):
    """``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1, max_length=1024)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    def limit(self) -> int | None:
        """The wanted length of the answer."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(Asked):
    """``POST /v1/completions``: a text that is to be continued, as it is, without the chat template."""

    prompt: Annotated[list[str], Field(min_length=1, max_length=1), BeforeValidator(_texts)]
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None

    def limit(self) -> int:
        """The wanted length of the answer; OpenAI's own default is as short."""
        return self.max_tokens or 16


class EmbeddingRequest(BaseModel):
    """``POST /v1/embeddings``."""

    model_config = ConfigDict(extra="ignore")
    model: str
    input: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=2048),
                     BeforeValidator(_texts)]  # fmt: skip
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None


R = TypeVar("R", bound=BaseModel)


def parse(raw: bytes, kind: type[R]) -> R:
    """Read a request. Raises ApiError 400 that names the field."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])[1:] or None
        raise ApiError(400, f"{param or 'body'}: {first['msg']}", param=param, code="invalid_value") from None


def embeddings(asked: EmbeddingRequest, vectors: Sequence[Sequence[float]], read: int) -> dict[str, Any]:
    """Vectors, as numbers or packed."""
    data = [{"object": "embedding", "index": number, "embedding": _packed(vector) if asked.encoding_format == "base64"
             else vector} for number, vector in enumerate(vectors)]  # fmt: skip
    return {"object": "list", "data": data, "model": asked.model,
            "usage": {"prompt_tokens": read, "total_tokens": read}}  # fmt: skip


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@dataclass(frozen=True)
class Chat:
    """How the answers of ``/v1/chat/completions`` are written. ``id``: of the answer; ``created``: seconds since 1970."""

    id: str
    created: int
    model: str

    def whole(self, text: str, finish: str, counts: dict[str, int]) -> dict[str, Any]:
        """A whole answer."""
        message = {"message": {"role": "assistant", "content": text}}
        return self._body("chat.completion", [self._choice(message, finish)], counts)

    def begin(self) -> bytes:
        """The first event of a streamed answer."""
        return self._event([self._choice({"delta": {"role": "assistant", "content": ""}}, None)])

    def piece(self, text: str) -> bytes:
        """An event with text."""
        return self._event([self._choice({"delta": {"content": text}}, None)])

    def end(self, finish: str) -> bytes:
        """The event that says why the answer ends."""
        return self._event([self._choice({"delta": {}}, finish)])

    def counted(self, counts: dict[str, int]) -> bytes:
        """The event with the counts, which has no choice."""
        return self._event([], counts)

    def _event(self, choices: list[Any], counts: dict[str, int] | None = None) -> bytes:
        return event(self._body("chat.completion.chunk", choices, counts))

    def _choice(self, content: dict[str, Any], finish: str | None) -> dict[str, Any]:
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish}

    def _body(self, kind: str, choices: list[Any], counts: dict[str, int] | None) -> dict[str, Any]:
        found = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return found | ({"usage": counts} if counts is not None else {})


class Text(Chat):
    """Answers of ``/v1/completions``: the same kind of object, whole and in pieces."""

    def whole(self, text: str, finish: str, counts: dict[str, int]) -> dict[str, Any]:
        """A whole answer."""
        return self._body("text_completion", [self._choice({"text": text}, finish)], counts)

    def begin(self) -> bytes:
        """Nothing: no role is said."""
        return b""

    def piece(self, text: str) -> bytes:
        """An event with text."""
        return self._event([self._choice({"text": text}, None)])

    def end(self, finish: str) -> bytes:
        """The event that says why the answer ends."""
        return self._event([self._choice({"text": ""}, finish)])

    def _event(self, choices: list[Any], counts: dict[str, int] | None = None) -> bytes:
        return event(self._body("text_completion", choices, counts))


def event(body: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
