"""A program inside one of our images, on this machine: with the very libraries that train, and no cluster between."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.place import CLUSTER
from demo.steps import ROOT, build_images

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
    made: str,
    *arguments: str | Path,
    path: Sequence[str],
    volumes: Mapping[Path, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run Python in a container. The checkout lies at ``/repo``; ``path`` goes into PYTHONPATH."""
    known = {"PYTHONPATH": ":".join(path), "HOME": "/tmp", "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/h"}
    named = [part for name, value in (known | dict(environment or {})).items() for part in ("--env", f"{name}={value}")]
    places = {ROOT: "/repo"} | dict(volumes or {})
    mounts = [part for ours, theirs in places.items() for part in ("-v", f"{ours}:{theirs}:ro")]
    return subprocess.run(
        ["buildah", "run", "--isolation=chroot", *mounts, *named, "--workingdir", "/tmp", made, "--", PYTHON,
         *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def lines(name: str, program: str, *arguments: str | Path, path: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of JSON that a program of the checkout prints, run in the image of a name that the checkout makes. Raises
    RuntimeError with what it said where it fails."""
    with container(build_images(CLUSTER)[name], bool(CLUSTER.plain_http)) as made:
        return lines_in(made, program, *arguments, path=path)


def lines_in(made: str, program: str, *arguments: str | Path, path: Sequence[str]) -> list[dict[str, Any]]:
    """The same in a container that is there."""
    done = python(made, f"/repo/{program}", *arguments, path=path)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr.strip()[-1000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
