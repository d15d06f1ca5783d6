"""Who signs: a key, or an identity. Libraries are loaded for the one that is asked for."""

from typing import Protocol

from slmkit.run import RunFailed
from slmops.contract import EvidenceRun, Reason, SigningKey, SignRun


class Signer(Protocol):
    """Somebody who signs statements."""

    name: str
    """As reports name it, once something is signed."""

    def bundle(self, said: bytes) -> bytes:
        """A statement, signed."""


class KeySigner:
    """A key pair."""

    def __init__(self, files: SigningKey) -> None:
        from slmkit import keys, signing

        self._key, self._bundle = keys.private_key(files), signing.bundle
        self.name = keys.fingerprint(self._key.public_key())

    def bundle(self, said: bytes) -> bytes:
        """A statement, signed: the same one each time."""
        return self._bundle(self._key, said)


def signer(run: SignRun | EvidenceRun) -> Signer:
    """Whom a run names. Raises RunFailed."""
    if run.key is not None:
        return KeySigner(run.key)
    if run.keyless is not None:
        from slmkit.keyless import IdentitySigner

        return IdentitySigner(run.keyless, run.registry)
    raise RunFailed(Reason.INVALID_CONFIGURATION, "key, keyless: neither is there, so there is nothing to sign with")
