"""What can go wrong between the operator and the API server, as types that a reconcile can tell apart."""

from typing import Any

LONGEST_WAIT = 300.0
"""Seconds that a server's Retry-After is believed."""


class ClusterError(Exception):
    """Any of the below. ``message`` is the API server's own text, fit for a condition."""

    def __init__(self, message: str, *, reason: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        """The API server's machine-readable reason, for example ``AlreadyExists``."""
        self.status = status
        """HTTP status, 0 when there was no answer."""


class NotFound(ClusterError):  # noqa: N818  (named as Kubernetes names them)
    """The object, or its kind, does not exist."""


class Forbidden(ClusterError):  # noqa: N818
    """RBAC, an admission policy or a quota refuses."""


class Conflict(ClusterError):  # noqa: N818
    """The object is another one than the caller knew (UID or version), or it exists already."""


class Invalid(ClusterError):  # noqa: N818
    """The API server calls the manifest wrong; asking again is of no use until it changes."""

    def __init__(
        self, message: str, *, reason: str = "", status: int = 0, causes: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message, reason=reason, status=status)
        self.causes = causes
        """Pairs of field path and message."""


class NotOurs(ClusterError):  # noqa: N818
    """An object of the child's name exists and belongs to somebody else. It is left as it is."""


class NotLeading(ClusterError):  # noqa: N818
    """This process no longer holds the Lease, so it must not write."""


class Expired(ClusterError):  # noqa: N818
    """A list's continue token or a watch's version is too old (410 Gone)."""


class InternalError(ClusterError):
    """The API server is there and failed over this one object (500, ``InternalError``): mostly an admission webhook that
    it could not call. Worth a retry, and no reason to leave other objects alone."""


class Unavailable(ClusterError):  # noqa: N818
    """No usable answer: network, timeout, throttling, storage that fails, credentials being renewed. Worth a retry."""

    def __init__(self, message: str, *, reason: str = "", status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message, reason=reason, status=status)
        self.retry_after = retry_after
        """Seconds that the server asked to wait."""


def from_status(code: int, status: dict[str, Any], retry_after: str | None, what: str) -> ClusterError:
    """The error for an answer that is none of success, redirects included: its HTTP status and its ``Status`` object."""
    message = str(status.get("message") or f"{what}: HTTP {code}")
    reason = str(status.get("reason") or "")
    # Proxies have their own ideas of an error's body.
    details: dict[str, Any] = status["details"] if isinstance(status.get("details"), dict) else {}
    # What the storage fails with has no reason; this one is the API server's own word for admission that went wrong.
    if code == 500 and (reason == "InternalError" or "calling webhook" in message):
        return InternalError(message, reason=reason, status=code)
    if code in (401, 408, 429) or code >= 500 or code < 400:
        wait = _seconds(retry_after) or _seconds(details.get("retryAfterSeconds"))
        return Unavailable(message, reason=reason, status=code, retry_after=wait)
    if code in _TYPES:
        return _TYPES[code](message, reason=reason, status=code)
    causes = tuple(
        (str(cause.get("field") or ""), str(cause.get("message") or ""))
        for cause in (details["causes"] if isinstance(details.get("causes"), list) else ())
        if isinstance(cause, dict)
    )
    return Invalid(message, reason=reason, status=code, causes=causes)


_TYPES: dict[int, type[ClusterError]] = {403: Forbidden, 404: NotFound, 409: Conflict, 410: Expired}


def _seconds(value: object) -> float | None:
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None  # Retry-After may be a date; the loop's own back-off does then
    return min(seconds, LONGEST_WAIT) if seconds > 0 else None
