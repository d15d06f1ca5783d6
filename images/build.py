"""Build the images and push them: ``python images/build.py [NAME…] --registry HOST:PORT --output FILE``.

An image's tag is a hash of everything that goes into it, so what has not changed is neither built nor pushed again: the
registry is asked first. Wheels are fetched on the host, checked against the constraints' hashes, and mounted into the
build, which fetches nothing.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bases

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = ("operator/slmops/__init__.py", "operator/slmops/contract")
LESSONS = tuple(
    f"images/trainer/slm_trainer/{name}"
    for name in ("__init__.py", "dataset", "early.py", "encoding.py", "evaluate.py", "model.py", "pages", "precision.py",
                 "schedule.py", "split.py", "store.py", "tasks.py", "template.py")
)  # fmt: skip
"""What the quantizer needs of the trainer: which records are learned, how they become tokens, how answers are measured."""
KIT = "images/kit/slmkit"
BACKENDS = ROOT / "images" / "quantizer" / "backends"
ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
DISK_GIB, AGAIN_GIB = 8, 2
"""Free disk that the images take, and that a change takes where they have been built."""
CODE = (".py", ".jinja", ".txt", ".in")
"""What images are made of, beside packages."""


@dataclass(frozen=True)
class Image:
    """What an image is made of."""

    name: str
    base: str
    sources: tuple[str, ...]

    def constraints(self, form: str) -> Path:
        """The file with its wheels' versions and hashes."""
        folder = ROOT / "images" / self.name
        return folder / (f"constraints-{form}.txt" if self.name == "trainer" else "constraints.txt")

    def backends(self, wanted: Sequence[str]) -> list[Path]:
        """The constraints of the tool chains that are asked for; the quantizer alone has any."""
        return [BACKENDS / f"{name}.txt" for name in wanted] if self.name == "quantizer" else []


IMAGES = {
    image.name: image
    for image in (
        Image("operator", "python", ("operator/slmops",)),
        Image("edge", "python", (*CONTRACT, KIT, "images/edge/slm_edge")),
        Image("bench", "python", (*CONTRACT, KIT, "images/bench/slm_bench")),
        Image("trainer", "torch", (*CONTRACT, KIT, "images/trainer/slm_trainer")),
        Image(
            "quantizer",
            "torch",
            (*CONTRACT, KIT, *LESSONS, "images/quantizer/backends", "images/quantizer/slm_quantizer"),
        ),
    )
}


def main() -> int:
    """Build what is asked for."""
    parser = argparse.ArgumentParser(description="build slmops' images and push them to a registry")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(IMAGES)} (all when absent)")
    parser.add_argument("--registry", default="registry.slm.local:5000", help="where to push, host:port")
    parser.add_argument("--plain-http", action="store_true", help="the registry speaks HTTP without TLS")
    parser.add_argument("--form", choices=("cpu", "cuda"), default="cpu", help="PyTorch of the trainer")
    parser.add_argument("--backends", nargs="*", default=[], choices=sorted(p.stem for p in BACKENDS.glob("*.py")),
                        help="tool chains of more formats for the quantizer")  # fmt: skip
    parser.add_argument("--base", help="base image instead of one made from Debian's packages")
    parser.add_argument("--check", action="store_true", help="only look for what is missing, and install it")
    parser.add_argument("--output", type=Path, help="file for the references, as JSON")
    options = parser.parse_args()
    if unknown := set(options.names) - set(IMAGES):
        parser.error(f"no such image: {', '.join(sorted(unknown))}; there are {', '.join(IMAGES)}")
    preflight()
    if options.check:
        return 0
    made = {name: build(IMAGES[name], options) for name in options.names or IMAGES}
    if options.output:
        known = json.loads(options.output.read_text()) if options.output.exists() else {}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(known | made, indent=2) + "\n")
    else:
        print(json.dumps(made, indent=2))
    return 0


def preflight() -> None:
    """Say what is missing, or install it."""
    missing = [tool for tool in ("buildah", "mmdebstrap") if not shutil.which(tool)]
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        print(f"images: installing {', '.join(missing)}", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
    elif missing:
        raise SystemExit(f"images: {', '.join(missing)} not found; install them (Debian: apt-get install)")
    free, needed = shutil.disk_usage(Path.home()).free / 2**30, DISK_GIB
    if subprocess.run(["buildah", "images", "-q"], capture_output=True, check=False).stdout.strip():
        needed = AGAIN_GIB
    if free < needed:
        raise SystemExit(f"images: {free:.0f} GiB of disk free, {needed} are needed; `buildah rmi --prune` frees some")


def build(image: Image, options: argparse.Namespace) -> str:
    """Build one image, unless the registry has it. Returns its reference by digest."""
    form = options.form if image.name == "trainer" else ""
    tag = fingerprint(image, form, options.base, options.backends)
    repository = f"slmops/{image.name}"
    if digest := pushed(options, repository, tag):
        print(f"images: {image.name} is up to date", flush=True)
        return f"{options.registry}/{repository}@{digest}"
    begun = time.monotonic()
    print(f"images: building {image.name}", flush=True)
    base = options.base or bases.base("python" if form == "cuda" else image.base)
    wheels = [fetch_wheels(constraints) for constraints in (image.constraints(form), *image.backends(options.backends))]
    local = f"localhost/{repository}:{tag}"
    places = [f"/wheels/{number}" for number in range(len(wheels))]
    pip = " ".join(("--no-index", *(f"--find-links {place}" for place in places)))
    arguments = {"BASE": base, "PIP_OPTIONS": pip} | ({"FORM": form} if form else {})
    if backends := image.backends(options.backends):
        arguments["BACKENDS"] = " ".join(path.stem for path in backends)
    _run("buildah", "bud", "-q", "--isolation=chroot", "--layers",
         *(part for ours, theirs in zip(wheels, places, strict=True) for part in ("-v", f"{ours}:{theirs}:ro")),
         *(part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")),
         "-f", ROOT / "images" / image.name / "Containerfile", "-t", local, ROOT)  # fmt: skip
    tls = ["--tls-verify=false"] if options.plain_http else []
    _run("buildah", "push", "-q", "--disable-compression", *tls, local,
         f"docker://{options.registry}/{repository}:{tag}")  # fmt: skip
    digest = pushed(options, repository, tag)
    if digest is None:
        raise SystemExit(f"images: {image.name} was pushed but the registry does not have it")
    print(f"images: {image.name} built and pushed in {time.monotonic() - begun:.0f} s", flush=True)
    return f"{options.registry}/{repository}@{digest}"


def fingerprint(image: Image, form: str, base: str | None, backends: Sequence[str] = ()) -> str:
    """A hash over all that goes into the image."""
    chosen = "".join(path.stem for path in image.backends(backends))
    sha = hashlib.sha256(f"{form}{base}{chosen}{bases.PACKAGES}{bases.SUITE}".encode())
    files = [ROOT / "images" / image.name / "Containerfile", image.constraints(form)]
    for source in image.sources:
        path = ROOT / source
        files += sorted(p for p in path.rglob("*") if p.suffix in CODE) if path.is_dir() else [path]
    for file in files:
        sha.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return sha.hexdigest()[:16]


def fetch_wheels(constraints: Path) -> Path:
    """A folder with the wheels that a constraints file names, checked against its hashes."""
    folder = bases.CACHE / "wheels" / hashlib.sha256(constraints.read_bytes()).hexdigest()[:16]
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        platforms = [f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 26, 27, 28, 31, 34, 35)] + [
            "manylinux2014_x86_64"
        ]
        _run(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
             "--require-hashes", "--only-binary=:all:", "--python-version=3.13", "--implementation=cp", "--abi=cp313",
             "--abi=abi3", "--abi=none", *(f"--platform={p}" for p in platforms), "-r", constraints, "-d",
             partial)  # fmt: skip
        partial.rename(folder)
    return folder


def pushed(options: argparse.Namespace, repository: str, tag: str) -> str | None:
    """Digest of a tag in the registry, or None."""
    scheme = "http" if options.plain_http else "https"
    url = f"{scheme}://{options.registry}/v2/{repository}/manifests/{tag}"
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": ACCEPT})  # noqa: S310  (the user's registry)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return str(answer.headers["Docker-Content-Digest"])
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        raise SystemExit(
            f"images: {options.registry} does not answer: {error}; is the cluster up (make cluster)?"
        ) from None


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2500:]
        raise SystemExit(f"images: {' '.join(str(c) for c in command[:3])} failed: {said}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
