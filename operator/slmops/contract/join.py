"""Several adapters become one image."""

from typing import Literal

from slmops.contract.base import Message
from slmops.contract.sources import Run, Sink, Source


class Member(Message):
    """An adapter that was published: as files, and as an image of one layer in the same repository."""

    adapter: Source
    layer: Source


class JoinRun(Run):
    """Publish ``image``: the layers of all adapters, by name. The layers are in the repository already; no byte of them
    is moved."""

    type: Literal["Join"] = "Join"
    adapters: dict[str, Member]
    output: Sink
