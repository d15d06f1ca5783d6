"""Fixtures of the unit tests serve these, too."""

from tests.unit.images.conftest import ask, edge, labelling, library, make, one_tls_context, registry, volume

__all__ = ["ask", "edge", "labelling", "library", "make", "one_tls_context", "registry", "volume"]
