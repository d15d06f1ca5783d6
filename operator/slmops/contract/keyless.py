"""Signatures without a key: an identity, a certificate of minutes, and an entry in a log."""

from slmops.contract.base import Message

TUF = "https://tuf-repo-cdn.sigstore.dev"
"""Where Sigstore's public instance says what of it is to be trusted."""


class Server(Message):
    """A server by its address."""

    url: str
    """``https://host[:port]``"""


class Root(Message):
    """Whose certificates and logs are trusted: exactly one of the two is set."""

    path: str | None = None
    """File with a trusted root, Sigstore's JSON."""
    url: str | None = None
    """TUF repository to ask."""


class Keyless(Message):
    """Who to sign as, and by whose help."""

    token: str
    """File with the token of a service account; it never appears in a message."""
    audience: str
    """Whom the token is for."""
    fulcio: Server
    rekor: Server
    root: Root


class Identity(Message):
    """Who has to have signed."""

    identity: str
    """The certificate's subject alternative name."""
    issuer: str
    """Of the token that the certificate was made for."""
    root: Root
