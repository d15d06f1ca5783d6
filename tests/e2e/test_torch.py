"""The tests that need PyTorch or ONNX Runtime, run inside the images: with the very libraries that train and quantize."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.steps import ROOT
from tests.e2e.platform import Platform

sys.path.insert(0, str(ROOT / "images"))
from build import fetch_wheels

pytestmark = pytest.mark.cluster
RUNNER = ("hypothesis", "iniconfig", "packaging", "pluggy", "pygments", "pytest", "sortedcontainers")
PLACES = ("operator", "images/kit", "images/trainer", "images/quantizer", ".")
TESTS = {
    "trainer": (
        "losses",
        "objectives",
        "tokens",
        "loop",
        "feed",
        "packing",
        "watch",
        "recipes",
        "label",
        "resume",
        "distributed",
    ),
    "quantizer": ("verify",),
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pytest for the images' Python, in the versions that the constraints name."""
    folder = tmp_path_factory.mktemp("runner")
    pins = (ROOT / "constraints" / "dev.txt").read_text().replace("\\\n", " ").splitlines()
    wanted = folder / "constraints.txt"
    wanted.write_text("\n".join(line for line in pins if line.partition("==")[0].strip() in RUNNER) + "\n")
    for wheel in fetch_wheels(wanted).glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    folder.chmod(0o755)
    return folder / "site"


@contextmanager
def container(platform: Platform, name: str) -> Iterator[str]:
    """A container of an image, on this machine."""
    plain = ["--tls-verify=false"] if platform.cluster.plain_http else []
    made = subprocess.check_output(["buildah", "from", *plain, platform.images[name]], text=True).strip()
    try:
        yield made
    finally:
        subprocess.run(["buildah", "rm", made], check=True, capture_output=True)


@pytest.mark.parametrize("name", TESTS)
def test_the_tests_of_an_image_pass_inside_it(platform: Platform, runner: Path, name: str) -> None:
    files = [f"/repo/tests/unit/images/test_torch_{part}.py" for part in TESTS[name]]
    path = ":".join([*(f"/repo/{place}" for place in PLACES), "/site"])
    options = ["-q", "--import-mode=importlib", "-o", "addopts=", "-p", "no:cacheprovider", "-W", "ignore"]
    with container(platform, name) as made:
        done = subprocess.run(
            ["buildah", "run", "--isolation=chroot", "-v", f"{ROOT}:/repo:ro", "-v", f"{runner}:/site:ro",
             "--env", f"PYTHONPATH={path}", "--env", "HOME=/tmp", "--env", "HYPOTHESIS_STORAGE_DIRECTORY=/tmp/h",
             "--workingdir", "/tmp", made, "--", "/opt/app/bin/python", "-m", "pytest", *options, *files],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout, "a library is missing in the image: " + done.stdout[-500:]
