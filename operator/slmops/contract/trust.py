"""Signatures: made of what a resource has published, and looked for before something is rolled out."""

from typing import Annotated, Any, Literal

from pydantic import Field

from slmops.contract.base import Message, Reference, Word
from slmops.contract.keyless import Keyless
from slmops.contract.report import Artifact
from slmops.contract.sources import Credentials, Run, Sink, Source


class SigningKey(Message):
    """A private key, mounted as files; neither of them ever appears in a message."""

    path: str
    """PEM: as cosign encrypts it, or PKCS #8."""
    password: str
    """What it is encrypted with; a file that need not be there."""


class SignRun(Run):
    """Sign artefacts, and the documents that refer to them, with one key or as one identity: exactly one of ``key`` and
    ``keyless`` is set. No byte of an artefact is moved."""

    type: Literal["Sign"] = "Sign"
    artifacts: Annotated[dict[Word, Artifact], Field(max_length=64)]
    """In the repository of ``output``, by role; each with the documents that the operator was told of."""
    key: SigningKey | None = None
    keyless: Keyless | None = None
    output: Sink


class EvidenceRun(Run):
    """Publish what the verdict on a rollout rests on, beside each model image that it is about."""

    type: Literal["Evidence"] = "Evidence"
    images: Annotated[dict[Word, Reference], Field(min_length=1, max_length=64)]
    """Model images by pool. Pools may have the same one; it gets one document then."""
    document: dict[str, Any]
    """What is published, as JSON."""
    credentials: Credentials | None = None
    """Of the registry, to push with."""
    key: SigningKey | None = None
    """What the document is signed with, where that is asked for."""
    keyless: Keyless | None = None
    """Or as whom."""


class VerifyRun(Run):
    """Look whether images are signed, before any of them is pulled."""

    type: Literal["Verify"] = "Verify"
    images: Annotated[dict[Word, Source], Field(max_length=64)]
    """By the name that a person gave to where they go. Each says what it has to show."""
