"""What is in the images: small enough, nobody's root, and started without a shell."""

import json
import subprocess
import tarfile
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.platform import Platform

pytestmark = pytest.mark.cluster
LIMITS = {"operator": 400, "edge": 400, "bench": 400, "trainer": 2000, "quantizer": 2000}
"""Megabytes of all layers, unpacked."""


@dataclass(frozen=True)
class Content:
    """An image's configuration, and its files with their sizes."""

    config: dict[str, Any]
    files: dict[str, int]


def content(platform: Platform, name: str) -> Content:
    """Read an image from the registry, layer by layer, without unpacking it."""
    reference = platform.images[name]
    crane = [str(platform.cluster.bin("crane"))]
    plain = ["--insecure"] if platform.cluster.plain_http else []
    config = json.loads(subprocess.check_output([*crane, "config", *plain, reference]))
    manifest = json.loads(subprocess.check_output([*crane, "manifest", *plain, reference]))
    files: dict[str, int] = {}
    for layer in manifest["layers"]:
        blob = f"{reference.partition('@')[0]}@{layer['digest']}"
        with subprocess.Popen([*crane, "blob", *plain, blob], stdout=subprocess.PIPE) as stream:
            assert stream.stdout is not None
            with tarfile.open(fileobj=stream.stdout, mode="r|*") as tar:
                files |= {member.name: member.size for member in tar if member.isfile()}
    return Content(config, files)


@pytest.mark.parametrize("name", LIMITS)
def test_an_image_is_small_unprivileged_and_needs_no_shell(platform: Platform, name: str) -> None:
    image = content(platform, name)
    megabytes = sum(image.files.values()) / 1e6
    assert 20 < megabytes < LIMITS[name], f"{megabytes:.0f} MB"
    process = image.config["config"]
    assert process["User"] == "65532:65532"
    program = process["Entrypoint"][0].removeprefix("/")
    assert program == "opt/app/bin/python", "an interpreter, not a shell"
    torch = [path for path in image.files if "/torch/" in path and path.endswith("__init__.py")]
    assert bool(torch) == (name in ("trainer", "quantizer"))
