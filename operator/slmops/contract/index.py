"""Images of one model for several platforms get one address."""

from typing import Literal

from slmops.contract.base import Message
from slmops.contract.sources import Run, Sink, Source


class Built(Message):
    """A variant that was published in the same repository."""

    name: str
    image: Source
    architecture: Literal["amd64", "arm64"]


class IndexRun(Run):
    """Publish ``index``, an OCI image index of these images in this order. No byte of them is moved."""

    type: Literal["Index"] = "Index"
    variants: tuple[Built, ...]
    output: Sink
