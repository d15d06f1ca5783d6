"""Fixtures of the unit tests serve these, too."""

from tests.unit.conftest import side_by_side

__all__ = ["side_by_side"]
