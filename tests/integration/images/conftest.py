"""What the tests of labelling share; all other fixtures are those of the unit tests."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.images.conftest import edge, library, make, one_tls_context, registry, volume

if TYPE_CHECKING:
    from tests.unit.images.asker import Asker
    from tests.unit.images.fakeregistry import FakeRegistry
    from tests.unit.images.labelling import Labelling

__all__ = ["edge", "library", "make", "one_tls_context", "registry", "volume"]


@pytest.fixture
def ask(tmp_path: Path) -> "Asker":
    """Asks teachers, with a journal of its own."""
    from tests.unit.images.asker import Asker

    return Asker(tmp_path / "answers.jsonl")


@pytest.fixture
def labelling(tmp_path: Path, volume: Path, registry: "FakeRegistry", monkeypatch: pytest.MonkeyPatch) -> "Labelling":
    """Labelling runs with a volume, a teacher and a registry of their own."""
    from tests.unit.images.labelling import Labelling

    return Labelling(tmp_path, volume, registry, monkeypatch)
