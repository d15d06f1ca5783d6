"""One request to a teacher with the OpenAI API: what is sent, what an answer means, and what a failure means.

https://platform.openai.com/docs/api-reference/chat, and for Azure OpenAI
https://learn.microsoft.com/azure/ai-services/openai/reference. What comes back is not trusted: it is bounded, and every
field is looked at before it is used.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import Any

import httpx

from slm_trainer.label.answers import REFUSAL, Answer, Question, Trouble, estimated
from slmkit.access import bearer
from slmkit.net import AsyncTransport, Gate
from slmkit.run import RunFailed
from slmops.contract import Endpoint, Reason, Sampling

if "sniffio" not in sys.modules and find_spec("sniffio") is None:
    # httpcore asks for this module several times a request. Where it is not installed (nor needed: there is asyncio alone),
    # looking through the whole path for it took a third of a request's CPU time; None says at once that it is not there.
    sys.modules["sniffio"] = None  # type: ignore[assignment]
RETRIED = {408, 413, 425, 429, 500, 502, 503, 504}
LARGEST = 16 << 20
"""Bytes of an answer; the longest that may be asked for has a fiftieth."""
MOST_TOKENS = 1 << 40
ENDS = ("length", "content_filter")
"""Ends that explain an answer without text: a model that thought until its tokens were used up, a filter."""
TOO_LONG = ("context_length_exceeded", "context length", "maximum context", "max_model_len", "too many tokens")
FILTER = ("content_filter", "content management policy", "responsibleaipolicyviolation")


class Failed(Exception):  # noqa: N818  (one request's end, not an error of the program)
    """A request without an answer."""

    def __init__(self, trouble: Trouble, words: str, *, again: bool = True, pause: float = 0.0) -> None:
        super().__init__(words)
        self.trouble, self.words, self.again, self.pause = trouble, words, again, pause
        self.spent = (0, 0)
        """Tokens read and written that the teacher counted all the same: they are paid for."""


class Door:
    """The way to a teacher: address, key, and whom that address may turn out to be (a Service, a node, the pod itself).
    Raises RunFailed where key or address cannot be used.

    Each request in flight has a client of its own. A common one looks through all its connections several times for each
    request, which takes longer than the request itself from some dozens of them on.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._headers, self._params = bearer(endpoint.credentials), {}
        if endpoint.azure_api_version is not None:
            token = self._headers.get("Authorization", "").removeprefix("Bearer ")
            self._headers = {"api-key": token} if token else {}
            self._params = {"api-version": endpoint.azure_api_version}
        try:
            httpx.URL(endpoint.url)
        except httpx.InvalidURL as error:
            raise RunFailed(Reason.TEACHER_UNREACHABLE, f"{endpoint.url}: {error}") from None
        self._gate = Gate(internal=True, own=True)

    def open(self) -> httpx.AsyncClient:
        """A client for one request at a time."""
        transport = AsyncTransport(self._gate, httpx.Limits(max_connections=1))
        return httpx.AsyncClient(
            base_url=self._endpoint.url.rstrip("/"), headers=self._headers, params=self._params,
            timeout=self._endpoint.timeout_seconds, transport=transport, trust_env=False,
        )  # fmt: skip


async def ask(client: httpx.AsyncClient, endpoint: Endpoint, sampling: Sampling, question: Question) -> Answer:
    """Ask once. Raises Failed where there is no answer, RunFailed where there will never be one."""
    try:
        async with (
            asyncio.timeout(endpoint.timeout_seconds),
            client.stream("POST", "/chat/completions", json=_body(endpoint, sampling, question)) as response,
        ):
            content = await _content(response)
    except (TimeoutError, httpx.TimeoutException):
        raise Failed(Trouble.TIMED_OUT, f"no answer within {endpoint.timeout_seconds:g} s") from None
    except httpx.HTTPError as error:
        raise Failed(Trouble.DISCONNECTED, f"{type(error).__name__}: {error}"[:200]) from None
    if not response.is_success:
        raise _refused(endpoint, response, content)
    return read(content, question)


def read(content: bytes, question: Question) -> Answer:
    """An answer from the body of a good response. Raises Failed, which knows what was paid for nothing."""
    try:
        body = json.loads(content)
        usage = body.get("usage")
    except (ValueError, AttributeError, RecursionError) as error:
        raise _bad(error) from None
    read, written = (_count(usage, field) for field in ("prompt_tokens", "completion_tokens"))
    try:
        text, finish = _said(body)
    except Failed as failed:
        failed.spent = (read or 0, written or 0)
        raise
    said = "".join(part["content"] for part in question.messages)
    return Answer(
        text,
        estimated(said) if read is None else read,
        estimated(text) if written is None else written,
        finish,
        read is None or written is None,
    )


def _said(body: dict[str, Any]) -> tuple[str, str]:
    """The words of an answer, and why they end. A refusal is an answer, too: who asks again pays again and hears it again.
    Raises Failed where there are no words, and nothing that says why."""
    try:
        choices = body["choices"]
        if isinstance(choices, list) and not choices:
            raise Failed(Trouble.NO_CHOICES, "an answer without choices")
        message, finish = choices[0]["message"], choices[0].get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _bad(error) from None
    if not text and isinstance(refusal, str) and refusal.strip():
        text, finish = refusal, REFUSAL
    if text is None and finish in ENDS:
        text = ""
    if not isinstance(text, str):
        raise Failed(Trouble.BAD_ANSWER, "an answer without text")
    text = text.encode("utf-8", "replace").decode()  # an answer can end in half of a character
    return text, finish[:32] if isinstance(finish, str) else "stop"


def _bad(error: Exception) -> Failed:
    return Failed(Trouble.BAD_ANSWER, f"{type(error).__name__}: {error}"[:200])


def asked_pause(headers: httpx.Headers, now: datetime) -> float:
    """Seconds that the server wants to be left alone (Retry-After, RFC 9110, section 10.2.3): a number, or a date, which
    is compared with the server's own clock where it tells the time. 0: it wants nothing, or nothing that is understood."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdecimal():
        return float(said)
    until = _date(said)
    return max(0.0, (until - (_date(headers.get("Date", "")) or now)).total_seconds()) if until else 0.0


def _body(endpoint: Endpoint, sampling: Sampling, question: Question) -> dict[str, Any]:
    """What is not wanted is not sent: some servers refuse what they do not know."""
    body: dict[str, Any] = {
        "model": endpoint.model, "messages": list(question.messages), "temperature": sampling.temperature,
        "top_p": sampling.top_p, "max_tokens": sampling.max_tokens, "seed": question.seed,
    }  # fmt: skip
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.frequency_penalty:
        body["frequency_penalty"] = sampling.frequency_penalty
    if sampling.presence_penalty:
        body["presence_penalty"] = sampling.presence_penalty
    return body


async def _content(response: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > LARGEST:
            raise Failed(Trouble.BAD_ANSWER, f"an answer of more than {LARGEST} bytes", again=False)
    return bytes(content)


def _refused(endpoint: Endpoint, response: httpx.Response, content: bytes) -> Exception:
    """What another status than 200 means."""
    status = response.status_code
    if status == 401:
        return RunFailed(Reason.SOURCE_UNAUTHORIZED, f"{endpoint.url}: the teacher answered 401")
    said = content[:4096].decode("utf-8", "replace").lower()
    words = f"answered {status}"
    if 400 <= status < 500 and any(word in said for word in FILTER):
        return Failed(Trouble.FILTERED, words, again=False)
    if 400 <= status < 500 and any(word in said for word in TOO_LONG):
        return Failed(Trouble.CONTEXT_TOO_LONG, words, again=False)
    if status not in RETRIED:
        return Failed(Trouble.REFUSED, words, again=False)
    limited = status in (413, 429)  # servers that count tokens a minute answer 413 when a request is above what is left
    pause = asked_pause(response.headers, datetime.now(UTC))
    return Failed(Trouble.RATE_LIMITED if limited else Trouble.SERVER_ERROR, words, pause=pause)


def _count(usage: Any, field: str) -> int | None:
    value = usage.get(field) if isinstance(usage, dict) else None
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if good else None


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
