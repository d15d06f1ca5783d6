"""The library requests behind the gate: sigstore asks Fulcio and Rekor with it, and has to keep to what all of us keep to.

The address that was judged is connected to (``net``), nobody is asked who is not listed (``peers``), answers have an end,
and a refusal is a reason. Redirects are refused: a token goes to the server that the resource names.
"""

import io
import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from slmkit.net import Gate, Transport
from slmkit.run import RunFailed
from slmkit.wire import RETRIED, body_of
from slmops.contract import Reason

ATTEMPTS = 3
WORD = 40
"""Characters of a word in an answer that is repeated: a token is longer."""


class Adapter(BaseAdapter):
    """Of a session with one server. ``name`` is what people call it, ``refusal`` the reason where it will not."""

    def __init__(
        self, name: str, refusal: Reason, plain: Iterable[str], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__()
        self._name, self._refusal, self._plain, self._sleep = name, refusal, frozenset(plain), sleep
        gate = Gate(internal=True, trusted=self._plain)
        self._client = httpx.Client(transport=Transport(gate), timeout=httpx.Timeout(60, connect=10))

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """One request, and its answer unless that is a refusal."""
        url = httpx.URL(request.url or "")
        if url.netloc.decode() in self._plain:
            url = url.copy_with(scheme="http")
        trouble = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._sleep(2.0**attempt)
            try:
                status, headers, content = self._exchange(request, url)
            except httpx.RequestError as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            if status in RETRIED:
                trouble = f"answered {status}"
                continue
            if not 200 <= status < 300:
                said = f"{self._name} ({url.host}) answered {status} {_words(content)}".rstrip()
                raise RunFailed(self._refusal, said)
            return _answer(request, status, headers, content)
        raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{self._name} ({url.host}): {trouble}, {ATTEMPTS} times")

    def _exchange(self, request: requests.PreparedRequest, url: httpx.URL) -> tuple[int, httpx.Headers, bytes]:
        headers = {key: str(value) for key, value in request.headers.items() if key.lower() != "connection"}
        body = request.body if isinstance(request.body, str | bytes) else b""  # nothing is streamed
        with self._client.stream(request.method or "GET", url, headers=headers, content=body) as answer:
            content = body_of(answer, lambda words: RunFailed(Reason.UNSAFE_SOURCE, f"{self._name}: {words}"))
        return answer.status_code, answer.headers, content

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


def _answer(
    request: requests.PreparedRequest, status: int, headers: httpx.Headers, content: bytes
) -> requests.Response:
    answer = requests.Response()
    answer.status_code, answer.request, answer.url = status, request, request.url or ""
    answer.headers = CaseInsensitiveDict(headers.items())
    answer.raw = io.BytesIO(content)
    return answer


def _words(content: bytes) -> str:
    """What an answer says of a refusal; whatever looks like a token is left out."""
    try:
        said = json.loads(content)["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    text = "".join(letter for letter in str(said) if " " <= letter <= "~")
    return re.sub(rf"[\w.-]{{{WORD},}}", "…", text)[:200]
