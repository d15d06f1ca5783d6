"""What all tests share."""

import gc
import sys
from importlib.util import find_spec

import pytest
from hypothesis import settings

# How long one example takes is the machine's affair; a test that measures time says so, and counts it itself.
settings.register_profile("slmops", deadline=None)
settings.load_profile("slmops")
# Tests, and the modules that they import, are there to the end: to look through them again and again for garbage takes a
# sixth of the time.
gc.disable()
# httpx looks for it with each request; what is known to be missing is not searched for.
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    gc.enable()
