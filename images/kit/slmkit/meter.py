"""Who wants to know how many bytes have come or gone."""

from typing import Protocol


class Meter(Protocol):
    """Somebody does (``slmkit.run.Context``)."""

    def expect(self, more: int) -> None: ...
    def advance(self, count: int) -> None: ...


class Unmetered:
    """Nobody does."""

    def expect(self, more: int) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""
