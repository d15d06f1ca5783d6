"""A program inside one of our images, on this machine: with the very libraries that train, and no cluster between."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from demo.steps import ROOT

PYTHON = "/opt/app/bin/python"


@contextmanager
def container(image: str, plain_http: bool) -> Iterator[str]:
    """A container of an image, by name."""
    plain = ["--tls-verify=false"] if plain_http else []
    made = subprocess.check_output(["buildah", "from", *plain, image], text=True).strip()
    try:
        yield made
    finally:
        subprocess.run(["buildah", "rm", made], check=True, capture_output=True)


def python(
    made: str, *arguments: str | Path, path: Sequence[str], volumes: Mapping[Path, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python in a container. The checkout lies at ``/repo``; ``path`` goes into PYTHONPATH."""
    places = {ROOT: "/repo"} | dict(volumes or {})
    mounts = [part for ours, theirs in places.items() for part in ("-v", f"{ours}:{theirs}:ro")]
    return subprocess.run(
        ["buildah", "run", "--isolation=chroot", *mounts, "--env", f"PYTHONPATH={':'.join(path)}", "--env", "HOME=/tmp",
         "--env", "HYPOTHESIS_STORAGE_DIRECTORY=/tmp/h", "--workingdir", "/tmp", made, "--", PYTHON,
         *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
