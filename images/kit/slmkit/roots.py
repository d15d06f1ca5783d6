"""Whose certificates and logs are trusted where something is signed without a key: a trusted root, as Sigstore writes it.

Of Sigstore's public instance it is fetched by TUF each time, as its clients have to: keys that were withdrawn are not used
any more. The library that is asked for it comes with the repository's first root, and its address is none that a resource
can name.
"""

from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from sigstore.errors import TUFError
from sigstore.models import ClientTrustConfig, TrustedRoot
from sigstore.verify import Verifier

from slmkit import net, peers
from slmkit.run import RunFailed
from slmops.contract import Reason, Root

HTTPS = 443


@cache
def trusted_root(root: Root) -> TrustedRoot:
    """What it says. Raises RunFailed."""
    if root.path is not None:
        return _of_file(Path(root.path))
    if root.url is None:
        raise RunFailed(Reason.INVALID_CONFIGURATION, "root: neither a file nor an address")
    host = urlsplit(root.url).hostname or ""
    if peers.limited() and not peers.named(host, HTTPS):  # TUF's own client knows nothing of the list
        raise net.refusal(host, HTTPS)
    try:
        return ClientTrustConfig.from_tuf(root.url).trusted_root
    except TUFError as error:
        words = f"{root.url} does not say whom to trust ({error}); in trustedRoot it can be told instead"
        raise RunFailed(Reason.SOURCE_UNREACHABLE, words) from None


@cache
def verifier(root: Root) -> Verifier:
    """What checks signatures by it. Raises RunFailed."""
    trusted = trusted_root(root)
    try:
        return Verifier(trusted_root=trusted)
    except Exception:  # of parts that are missing, and of certificates that are none
        raise _unusable(root) from None


def _of_file(path: Path) -> TrustedRoot:
    try:
        return TrustedRoot.from_file(str(path))
    except FileNotFoundError:
        raise RunFailed(Reason.KEY_UNUSABLE, f"there is no key {path.name}") from None
    except Exception:  # pydantic's, JSON's and the library's own
        raise _unusable(Root(path=str(path))) from None


def _unusable(root: Root) -> RunFailed:
    what = f"key {Path(root.path).name}" if root.path is not None else f"what {root.url} holds"
    return RunFailed(
        Reason.KEY_UNUSABLE, f"{what} is no trusted root with certificates and logs, as Sigstore writes it"
    )
