"""Requests, answers and errors as the OpenAI API has them. Pure: no model, no HTTP."""

import json
from typing import Annotated, Any, Literal

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


class ChatRequest(BaseModel):
    """``POST /v1/chat/completions``. Unknown fields are ignored, as OpenAI's clients expect of servers."""

    model_config = ConfigDict(extra="ignore")
    model: str
    messages: list[Message] = Field(min_length=1, max_length=1024)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: Annotated[list[Stop], Field(max_length=4), BeforeValidator(_texts)] | None = None
    seed: int | None = None
    n: Literal[1] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    def limit(self) -> int | None:
        """The wanted length of the answer."""
        return self.max_completion_tokens or self.max_tokens

    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [text for text in self.stop or [] if text]


def parse(raw: bytes) -> ChatRequest:
    """Read a request. Raises ApiError 400 that names the field."""
    try:
        return ChatRequest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])[1:] or None
        raise ApiError(400, f"{param or 'body'}: {first['msg']}", param=param, code="invalid_value") from None


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion(id: str, created: int, model: str, text: str, finish: str, counts: dict[str, int]) -> dict[str, Any]:
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": finish}
    return {"id": id, "object": "chat.completion", "created": created, "model": model, "choices": [choice],
            "usage": counts}  # fmt: skip


def chunk(
    id: str, created: int, model: str, delta: dict[str, str] | None, finish: str | None = None,
    counts: dict[str, int] | None = None,
) -> bytes:  # fmt: skip
    """One server-sent event of a streamed answer; with ``counts`` the last one, which has no choice."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    body: dict[str, Any] = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model,
                            "choices": choices}  # fmt: skip
    if counts is not None:
        body["usage"] = counts
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
