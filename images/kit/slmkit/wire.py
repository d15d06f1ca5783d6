"""HTTP with registries: logins, retries with Retry-After, answers of a bounded size, every refusal a reason."""

import logging
import random
import re
from collections.abc import Callable, Collection, Iterable, Mapping

import httpx

from slmkit.access import Access, fit_for_a_header
from slmkit.net import FOR, Gate, Transport
from slmops import contract

log = logging.getLogger(__name__)
ATTEMPTS = 5
ANSWER_LIMIT = 4 << 20
"""Bytes of an answer that is not a blob. The specification asks registries to take manifests of this size."""
RETRIED = (408, 429, 500, 502, 503, 504)
NOTHING: Mapping[str, str] = {}
Body = Callable[[], bytes | Iterable[bytes]]
"""A request's body, from its beginning each time: it is sent once more after a login. What is streamed needs a
``Content-Length``, or it would go in chunks of HTTP, which many registries do not take."""


class Wire:
    """All that a run says to registries."""

    def __init__(
        self, settings: contract.Registry, transport: httpx.BaseTransport | None, sleep: Callable[[float], None]
    ) -> None:
        self._plain = set(settings.plain_http)
        self._client = httpx.Client(
            transport=transport or Transport(Gate(internal=True, trusted=settings.plain_http)),
            timeout=httpx.Timeout(60, connect=10), follow_redirects=True,
        )  # fmt: skip
        self._sleep = sleep
        self._tokens: dict[tuple[str, ...], str] = {}

    def request(
        self, method: str, access: Access, path: str, *, headers: Mapping[str, str] = NOTHING,
        content: bytes | None = None, accepted: Collection[int] = (),
    ) -> httpx.Response:  # fmt: skip
        """An answer, read to its end. ``accepted``: what is no refusal besides success."""
        body = None if content is None else lambda: content

        def send() -> httpx.Response:
            return self.exchange(method, access, self.url(access, path), headers=headers, body=body)

        return self._persist(access, send, accepted)

    def open(
        self, access: Access, path: str, *, headers: Mapping[str, str] = NOTHING, accepted: Collection[int] = ()
    ) -> httpx.Response:
        """The beginning of an answer; its body is for the caller to read, and to close."""

        def send() -> httpx.Response:
            answer = self._send("GET", access, self.url(access, path), headers, None)
            return answer if answer.is_success else _whole(answer, access)

        return self._persist(access, send, accepted)

    def exchange(
        self, method: str, access: Access, url: httpx.URL, *, headers: Mapping[str, str] = NOTHING,
        body: Body | None = None,
    ) -> httpx.Response:  # fmt: skip
        """One request and its answer, whatever it says. Raises httpx.RequestError when there is none."""
        return _whole(self._send(method, access, url, headers, body), access)

    def url(self, access: Access, path: str) -> httpx.URL:
        """Where something of a repository is."""
        scheme = "http" if access.host in self._plain else "https"
        return httpx.URL(f"{scheme}://{access.host}/v2/{access.name}/{path}")

    def pause(self, attempt: int, answer: httpx.Response | None = None) -> None:
        """Wait as long as the registry asked for, or twice as long each time."""
        asked = answer.headers.get("Retry-After", "") if answer is not None else ""
        if asked.isdecimal():
            self._sleep(min(float(asked), 60.0))
        else:
            self._sleep(float(2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311  (jitter, not a secret)

    def _persist(self, access: Access, send: Callable[[], httpx.Response], accepted: Collection[int]) -> httpx.Response:
        trouble = ""
        for attempt in range(ATTEMPTS):
            answer: httpx.Response | None = None
            try:
                answer = send()
            except httpx.RequestError as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                if answer.is_success or answer.status_code in accepted:
                    return answer
                if answer.status_code not in RETRIED:
                    raise access.refused(answer)
                trouble = f"answered {answer.status_code}"
            log.warning("registry", extra={"repository": str(access), "trouble": trouble, "attempt": attempt + 1})
            if attempt + 1 < ATTEMPTS:
                self.pause(attempt, answer)
        raise access.unreachable(f"{trouble}, {ATTEMPTS} times")

    def _send(
        self, method: str, access: Access, url: httpx.URL, headers: Mapping[str, str], body: Body | None
    ) -> httpx.Response:
        """One request; where the registry asks who we are (tokens run out), once more with an answer to that. An upload
        goes where the registry says; our login goes there only if that is the registry itself."""
        home = self.url(access, "")
        at_home = (url.scheme, url.netloc) == (home.scheme, home.netloc)

        def send() -> httpx.Response:
            shown = {**headers, **(self._authorization(access) if at_home else NOTHING)}
            content = None if body is None else body()
            request = self._client.build_request(
                method, url, headers=shown, content=content, extensions={FOR: access.bare_host}
            )
            # A stream that has begun cannot be sent to another place, and registries name that place beforehand.
            return self._client.send(
                request, stream=True, follow_redirects=content is None or isinstance(content, bytes)
            )

        answer = send()
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code == 401 and at_home and self._log_in(access, challenge):
            answer.close()
            answer = send()
        return answer

    def _authorization(self, access: Access) -> dict[str, str]:
        token = self._tokens.get((access.host, *access.scopes))
        return {"Authorization": token} if token else {}

    def _log_in(self, access: Access, challenge: str) -> bool:
        """Answer a challenge (Basic or Bearer). False when there is nothing to answer with."""
        user = access.user()
        if challenge.lower().startswith("basic"):
            if user:
                self._tokens[(access.host, *access.scopes)] = f"Basic {user}"
            return user is not None
        parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        try:
            request = self._client.build_request(
                "GET", parts["realm"], params={"service": parts.get("service", ""), "scope": access.scopes},
                headers={"Authorization": f"Basic {user}"} if user else {}, extensions={FOR: access.bare_host},
            )  # fmt: skip
        except (KeyError, httpx.InvalidURL):
            return False
        if user and request.url.scheme != "https" and access.host not in self._plain:
            raise access.nonsense("the registry asks for the password where everybody on the way could read it")
        reply = _whole(self._client.send(request, stream=True), access)
        if reply.status_code in RETRIED:
            raise httpx.TransportError(f"the token server answered {reply.status_code}")
        try:
            found = reply.json()
            token = found.get("token") or found.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            return False
        if not reply.is_success or not fit_for_a_header(token):
            return False
        self._tokens[(access.host, *access.scopes)] = f"Bearer {token}"
        return True


def body_of(answer: httpx.Response, refuse: Callable[[str], Exception]) -> bytes:
    """An answer's body. Raises what ``refuse`` makes of the words as soon as it is too large."""
    content = bytearray()
    try:
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > ANSWER_LIMIT:
                raise refuse(f"an answer is larger than {ANSWER_LIMIT} bytes")
    finally:
        answer.close()
    return bytes(content)


def _whole(answer: httpx.Response, access: Access) -> httpx.Response:
    """The answer with its body, which is refused as soon as it is too large."""
    content = body_of(answer, access.nonsense)
    about_the_wire = (b"content-encoding", b"content-length", b"transfer-encoding")
    headers = [(key, value) for key, value in answer.headers.raw if key.lower() not in about_the_wire]
    return httpx.Response(answer.status_code, headers=headers, content=content, request=answer.request)
