"""Signing without a key, by the library sigstore: the token of a service account gets a certificate of minutes from Fulcio,
and Rekor notes each signature in its log.

The key exists in this process alone, and for as long as it lives. What comes out is a bundle like one with a key, but with
certificate and entry; it is checked before it leaves, so that a trusted root that does not fit is told by who signs and not
by who verifies.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sigstore.dsse import Statement
from sigstore.errors import VerificationError
from sigstore.models import SigningConfig
from sigstore.oidc import ExpiredIdentity, IdentityError, IdentityToken
from sigstore.sign import Signer, SigningContext
from sigstore_models.trustroot.v1 import SigningConfig as Config

from slmkit import identities, roots
from slmkit.access import fit_for_a_header
from slmkit.requested import Adapter
from slmkit.run import RunFailed
from slmkit.signing import NotSignedError
from slmops import contract
from slmops.contract import Reason

RENEWED_SECONDS = 240.0
"""How long a certificate is used. Fulcio's are valid for ten minutes."""


class IdentitySigner:
    """Signs as a service account."""

    def __init__(
        self, wanted: contract.Keyless, registry: contract.Registry, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._wanted = wanted
        self.name = ""
        """Who it is, as the certificate says, once something is signed."""
        self._signer: tuple[float, Signer] | None = None
        config = SigningConfig(Config.from_json(json.dumps(_services(wanted))))
        fulcio, rekor = config.get_fulcio(), config.get_tlogs()[0]
        plain = registry.plain_http
        fulcio.session.mount("https://", Adapter("Fulcio", Reason.IDENTITY_REFUSED, plain, sleep))
        # The library has no other way to say whom it may connect to; each thread has one session.
        rekor._session.mount("https://", Adapter("Rekor", Reason.SOURCE_UNREACHABLE, plain, sleep))  # type: ignore[attr-defined]
        self._context = SigningContext(fulcio=fulcio, rekor=rekor, trusted_root=roots.trusted_root(wanted.root))

    def bundle(self, said: bytes) -> bytes:
        """A statement, signed and noted."""
        try:
            made = self._current().sign_dsse(Statement(_named(said)))
            content = made.to_json().encode()
            identities.checked(self._wanted.root, content)
        except (IdentityError, ExpiredIdentity) as error:
            words = f"the token of the service account is not taken: {error.__cause__ or error or 'it ran out'}"
            raise RunFailed(Reason.IDENTITY_REFUSED, words) from None
        except (NotSignedError, VerificationError) as error:
            words = f"trustedRoot does not know the certificate of Fulcio or the log of Rekor: {error}"
            raise RunFailed(Reason.KEY_UNUSABLE, words) from None
        except RunFailed:
            raise
        except Exception as error:  # of an answer that is no certificate and no entry
            words = f"Fulcio or Rekor answers what is neither certificate nor entry ({type(error).__name__})"
            raise RunFailed(Reason.SOURCE_UNREACHABLE, words) from None
        self.name = str(identities.who(made.signing_certificate))
        return content

    def _current(self) -> Signer:
        now = time.monotonic()
        if self._signer is None or now - self._signer[0] > RENEWED_SECONDS:
            token = IdentityToken(_token(Path(self._wanted.token)), client_id=self._wanted.audience)
            self._signer = now, Signer(token, self._context)
        return self._signer[1]


def _token(path: Path) -> str:
    """Read anew for each certificate: the kubelet renews it."""
    try:
        token = path.read_text().strip()
    except (OSError, ValueError):
        raise RunFailed(Reason.IDENTITY_REFUSED, "the token of the service account cannot be read") from None
    if not fit_for_a_header(token):
        raise RunFailed(Reason.IDENTITY_REFUSED, "what should be the token of the service account is none")
    return token


def _named(said: bytes) -> bytes:
    """The statement with a name for each subject, which the library asks for and in-toto does not."""
    statement: dict[str, Any] = json.loads(said)
    subjects = [{"name": ""} | subject for subject in statement["subject"]]
    return json.dumps(statement | {"subject": subjects}, separators=(",", ":"), sort_keys=True).encode()


def _services(wanted: contract.Keyless) -> dict[str, Any]:
    """Where to sign, in Sigstore's own form."""

    def service(server: contract.Server) -> list[dict[str, Any]]:
        always = {"start": "1970-01-01T00:00:00Z"}
        return [{"url": server.url, "majorApiVersion": 1, "validFor": always, "operator": "named"}]

    return {
        "mediaType": str(SigningConfig.SigningConfigType.SIGNING_CONFIG_0_2),
        "caUrls": service(wanted.fulcio),
        "rekorTlogUrls": service(wanted.rekor),
        "rekorTlogConfig": {"selector": "ANY"},
        "tsaConfig": {"selector": "ANY"},
    }
