"""Base images made from Debian's packages, for machines that reach no image registry: ``python``, ``torch``.

They stand in for a distribution's official image; mmdebstrap checks the archive's signatures. PyTorch is Debian's own CPU
build: a fifth of the size of the CUDA build that PyPI has. Kept in the user's cache by a hash of the recipe.
"""

import hashlib
import os
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slmops"
SUITE = "trixie"
PACKAGES = {
    # Foundry Local's library is linked with libatomic: so small that a base of its own would cost more.
    "python": ["ca-certificates", "python3", "python3-venv", "libatomic1"],
    # Without libopenblas PyTorch falls back to the reference BLAS, which is tens of times slower.
    "torch": ["ca-certificates", "python3", "python3-venv", "python3-torch", "python3-numpy", "libopenblas0-pthread"],
}
LEFT_OUT = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"]


def base(kind: str) -> str:
    """Name of a local base image, made if need be."""
    recipe = hashlib.sha256(f"{SUITE}{PACKAGES[kind]}{LEFT_OUT}".encode()).hexdigest()[:12]
    name = f"localhost/slmops-base-{kind}:{recipe}"
    if subprocess.run(["buildah", "inspect", "--type=image", name], capture_output=True, check=False).returncode == 0:
        return name
    tar = CACHE / "base" / f"{kind}-{recipe}.tar"
    if not tar.exists():
        print(f"images: making base {kind} from Debian's packages (about a minute)", flush=True)
        tar.parent.mkdir(parents=True, exist_ok=True)
        partial = tar.with_suffix(".partial.tar")
        exclude = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
        _run("mmdebstrap", "-q", "--variant=minbase", "--aptopt=APT::Install-Recommends=false", *exclude,
             f"--include={','.join(PACKAGES[kind])}", SUITE, partial)  # fmt: skip
        partial.rename(tar)
    container = _run("buildah", "from", "scratch").strip()
    try:
        _run("buildah", "add", "-q", container, tar, "/")
        _run("buildah", "config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
        _run("buildah", "commit", "-q", container, name)
    finally:
        _run("buildah", "rm", container)
    return name


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"images: {' '.join(str(c) for c in command[:4])} failed: {done.stderr.strip()[-1500:]}")
    return done.stdout
