"""Who a run is to others: at registries by Docker's configuration file, everywhere else by a token in a file.

What is read here leaves in one header and nowhere else. It is checked beforehand, because HTTP libraries quote a header
that they cannot send, and their words end up in a status that everybody reads.
"""

import base64
import binascii
import json
import re
from pathlib import Path

import httpx

from slmkit.run import RunFailed
from slmops.contract import Credentials, Reason

REFERENCE = re.compile(
    r"(?P<host>(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?)"
    r"/(?P<name>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
"""Names and tags by the grammar of the OCI distribution specification."""


def parse(reference: str) -> dict[str, str]:
    """``host/name[:tag][@digest]`` in parts; what is not there is left out."""
    match = REFERENCE.fullmatch(reference)
    if not match:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{reference} is not registry/repository[:tag][@sha256:…]")
    return {key: value for key, value in match.groupdict().items() if value is not None}


def bearer(credentials: Credentials | None) -> dict[str, str]:
    """The header that shows a token; none without credentials."""
    if credentials is None:
        return {}
    try:
        token = Path(credentials.path).read_text().strip()
    except (OSError, ValueError):
        raise RunFailed(Reason.SOURCE_UNAUTHORIZED, "the Secret that credentials names cannot be read") from None
    if not fit_for_a_header(token):
        raise RunFailed(Reason.SOURCE_UNAUTHORIZED, "the Secret that credentials names does not hold one plain token")
    return {"Authorization": f"Bearer {token}"}


def fit_for_a_header(value: object) -> bool:
    """Whether a secret can be sent at all."""
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable() and " " not in value


class Access:
    """One repository, one purpose, what to show at the door, and what a refusal means."""

    def __init__(
        self, host: str, name: str, action: str, credentials: Credentials | None, reads: tuple[str, ...] = ()
    ) -> None:
        self.host, self.name, self._pulls, self._credentials = host, name, action == "pull", credentials
        own = f"repository:{name}:{'pull' if self._pulls else 'pull,push'}"
        self.scopes = (own, *(f"repository:{other}:pull" for other in reads))

    def reading(self, name: str) -> "Access":
        """The same, and the right to read another repository of the registry."""
        return Access(self.host, self.name, "pull" if self._pulls else "push", self._credentials, (name,))

    def __str__(self) -> str:
        return f"{self.host}/{self.name}"

    @property
    def bare_host(self) -> str:
        """The host without its port."""
        return httpx.URL(f"https://{self.host}").raw_host.decode("ascii")

    def user(self) -> str | None:
        """``user:password`` in base64, from a Docker ``config.json``."""
        if self._credentials is None:
            return None
        try:
            auths = json.loads(Path(self._credentials.path).read_bytes())["auths"]
            entry = auths.get(self.host) or auths.get(f"https://{self.host}") or {}
            if "auth" in entry:
                pair = base64.b64decode(entry["auth"])
            elif "username" in entry:
                pair = f"{entry['username']}:{entry.get('password', '')}".encode()
            else:
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
            raise RunFailed(self._unauthorized, f"{self}: the Secret holds no readable .dockerconfigjson") from None
        return base64.b64encode(pair).decode()

    def refused(self, answer: httpx.Response) -> RunFailed:
        """The failure that a definite answer means."""
        if answer.status_code == 404 and self._pulls:
            return RunFailed(Reason.SOURCE_NOT_FOUND, f"{self}: not found in the registry")
        forbidden = not self._pulls or answer.status_code in (401, 403)
        reason = self._unauthorized if forbidden else Reason.SOURCE_UNREACHABLE
        return RunFailed(reason, f"{self}: the registry answered {answer.status_code} {_words(answer)}".strip())

    def unreachable(self, trouble: str) -> RunFailed:
        """The failure that no definite answer means."""
        return RunFailed(
            Reason.SOURCE_UNREACHABLE if self._pulls else Reason.REGISTRY_UNREACHABLE, f"{self}: {trouble}"
        )

    def nonsense(self, what: str) -> RunFailed:
        """The failure that an answer beyond the protocol means."""
        return RunFailed(Reason.UNSAFE_SOURCE if self._pulls else Reason.REGISTRY_REFUSED, f"{self}: {what}")

    @property
    def _unauthorized(self) -> Reason:
        return Reason.SOURCE_UNAUTHORIZED if self._pulls else Reason.REGISTRY_REFUSED


def _words(answer: httpx.Response) -> str:
    try:
        return "; ".join(str(error.get("message", "")) for error in answer.json()["errors"])[:200]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
