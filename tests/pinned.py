"""Python environments for other people's programs that our tests and benchmarks run beside ours, kept by what they pin."""

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.cluster.layout import CACHE


def python(constraints: Path) -> Path:
    """The Python of an environment with just these packages, whose hashes are checked; made unless it is there."""
    recipe = hashlib.sha256(constraints.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / "pinned" / f"{constraints.parent.name}-{recipe}"
    whole = folder / "whole"  # an environment knows where it lies, so it cannot be made elsewhere and moved
    if not whole.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "--require-hashes",
                        "-r", str(constraints)], check=True)  # fmt: skip
        whole.touch()
    return folder / "bin" / "python"
