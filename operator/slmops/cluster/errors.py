"""What can go wrong between the operator and the API server, as types that a reconcile can tell apart."""


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


class Unavailable(ClusterError):  # noqa: N818
    """No usable answer: network, timeout, throttling, a server's error, credentials being renewed. Worth a retry."""

    def __init__(self, message: str, *, reason: str = "", status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message, reason=reason, status=status)
        self.retry_after = retry_after
        """Seconds that the server asked to wait."""
