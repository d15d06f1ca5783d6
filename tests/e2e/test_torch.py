"""The tests that need PyTorch or ONNX Runtime, run inside the images: with the very libraries that train and quantize."""

import sys
import zipfile
from pathlib import Path

import pytest

from bench.inside import container, python
from demo.steps import ROOT
from tests.e2e.platform import Platform

sys.path.insert(0, str(ROOT / "images"))
from build import fetch_wheels

pytestmark = [pytest.mark.cluster, pytest.mark.long]
RUNNER = (
    "execnet",
    "hypothesis",
    "iniconfig",
    "packaging",
    "pluggy",
    "pygments",
    "pytest",
    "pytest-xdist",
    "sortedcontainers",
)
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Models of tests are small: two processes of one thread are done before one of two."""
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
        "template",
        "contrast",
        "train",
        "resume",
        "distributed",
        "metrics",
        "evaluate",
    ),
    "quantizer": (
        "verify",
        "adapt",
        "metrics",
        "runtime",
        "onnx",
        "olive",
        "variants",
        "adapters",
        "quantize",
        "prune",
    ),
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


@pytest.mark.parametrize("name", TESTS)
def test_the_tests_of_an_image_pass_inside_it(platform: Platform, runner: Path, name: str) -> None:
    files = [f"/repo/tests/unit/images/test_torch_{part}.py" for part in TESTS[name]]
    options = ["-q", "--import-mode=importlib", "-o", "addopts=", "-p", "no:cacheprovider", "-W", "ignore",
               "-n", "2", "--dist", "worksteal"]  # fmt: skip
    with container(platform.images[name], bool(platform.cluster.plain_http)) as made:
        done = python(made, "-m", "pytest", *options, *files, path=[*(f"/repo/{place}" for place in PLACES), "/site"],
                      volumes={runner: "/site"}, environment=ONE_THREAD)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout, "a library is missing in the image: " + done.stdout[-500:]
