"""By what a signature is read: a public key, or an identity."""

from pathlib import Path
from typing import Protocol

from slmkit import keys, signing
from slmkit.run import RunFailed
from slmops.contract import Identity, Reason, Verify


class Opener(Protocol):
    """Reads signatures of one signer. Both ways of reading raise NotSignedError where it is somebody else's."""

    name: str
    """The signer, as reports name it."""
    words: str
    """The same in a sentence."""

    def opened(self, content: bytes) -> tuple[str, set[str]]:
        """What a bundle says: predicate type and digests."""

    def opened_simple(self, content: bytes, signature: object) -> str:
        """What cosign's older form says: a digest."""

    def told(self, error: signing.NotSignedError) -> str:
        """What a person should know of a signature that is not the signer's."""


class ByKey:
    """Of a key pair."""

    def __init__(self, path: str) -> None:
        self._key = keys.public_key(Path(path))
        self.name = keys.fingerprint(self._key)
        self.words = f"with the key {self.name}"

    def opened(self, content: bytes) -> tuple[str, set[str]]:
        """By the key alone."""
        return signing.opened(self._key, content)

    def opened_simple(self, content: bytes, signature: object) -> str:
        """By the key alone."""
        return signing.opened_simple(self._key, content, signature)

    def told(self, error: signing.NotSignedError) -> str:
        """Nothing: whose another signature is a key does not tell."""
        return ""


class ByIdentity:
    """Of somebody who has no key."""

    def __init__(self, wanted: Identity) -> None:
        from slmkit import identities, roots

        roots.verifier(wanted.root)  # whom to trust is known before anything is asked
        self._wanted, self._identities = wanted, identities
        self.name = str(identities.Who(wanted.identity, wanted.issuer))
        self.words = f"by {self.name}"

    def opened(self, content: bytes) -> tuple[str, set[str]]:
        """By certificate and log."""
        return self._identities.opened(self._wanted, content)

    def opened_simple(self, content: bytes, signature: object) -> str:
        """Never: the older form keeps certificate and entry in annotations, in a form of its own."""
        raise signing.NotSignedError("it is of cosign's older form, which is read with a key alone")

    def told(self, error: signing.NotSignedError) -> str:
        """Who has signed instead, or what is wrong with it."""
        return f"found: {error}" if isinstance(error, self._identities.OtherSignerError) else str(error)


def opener(wanted: Verify) -> Opener:
    """Of what has to be shown. Raises RunFailed."""
    if wanted.key is not None:
        return ByKey(wanted.key)
    if wanted.identity is not None:
        return ByIdentity(wanted.identity)
    raise RunFailed(Reason.INVALID_CONFIGURATION, "verify: neither a key nor an identity is there to verify by")
