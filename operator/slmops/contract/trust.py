"""Signatures: made of what a resource has published, and looked for before something is rolled out."""

from typing import Annotated, Literal

from pydantic import Field

from slmops.contract.base import Message, Word
from slmops.contract.report import Artifact
from slmops.contract.sources import Run, Sink, Source


class SigningKey(Message):
    """A private key, mounted as files; neither of them ever appears in a message."""

    path: str
    """PEM: as cosign encrypts it, or PKCS #8."""
    password: str
    """What it is encrypted with; a file that need not be there."""


class SignRun(Run):
    """Sign artefacts, and the documents that refer to them, with one key. No byte of an artefact is moved."""

    type: Literal["Sign"] = "Sign"
    artifacts: Annotated[dict[Word, Artifact], Field(max_length=64)]
    """In the repository of ``output``, by role; each with the documents that the operator was told of."""
    key: SigningKey
    output: Sink


class VerifyRun(Run):
    """Look whether images are signed, before any of them is pulled."""

    type: Literal["Verify"] = "Verify"
    images: Annotated[dict[Word, Source], Field(max_length=64)]
    """By the name that a person gave to where they go. Each says what it has to show."""
