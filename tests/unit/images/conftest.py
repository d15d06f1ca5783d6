"""What the tests of the images share."""

import os
import ssl
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from tests.unit.images.fakeregistry import FakeRegistry

if TYPE_CHECKING:
    from tests.unit.images.edgeserver import Edge, Make
    from tests.unit.images.fakeedge import FakeGenAI

if find_spec("onnxruntime_genai") is None:
    sys.modules["onnxruntime_genai"] = ModuleType("onnxruntime_genai")  # so that what imports it can be; see fakeedge
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # these tests are of CPUs, wherever they run; bench.gpu is of GPUs
TLS = ssl.create_default_context()


@pytest.fixture(autouse=True)
def one_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP clients read the certificates of the world when they are made: that takes longer than most tests here, none
    of which speaks TLS."""
    monkeypatch.setattr(ssl, "create_default_context", lambda *args, **options: TLS)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    """A registry for one test."""
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def library() -> "Iterator[FakeGenAI]":
    """A GenAI library for one test; the engines that use it end with it."""
    from tests.unit.images.fakeedge import FakeGenAI

    library = FakeGenAI()
    yield library
    library.end()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, library: "FakeGenAI", tmp_path: Path) -> "Make":
    """Makes servers of the edge runtime."""
    from tests.unit.images.edgeserver import maker

    return maker(monkeypatch, library, tmp_path)


@pytest.fixture
def edge(make: "Make") -> "Edge":
    """A server that is ready."""
    return make()


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of ``pvc://claim``, with nothing in it."""
    folder = tmp_path / "pvc" / "claim"
    folder.mkdir(parents=True)
    monkeypatch.setattr("slmkit.sources.PVC_ROOT", tmp_path / "pvc")
    return folder
