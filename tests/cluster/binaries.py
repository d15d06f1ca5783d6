"""The cluster's programs, built from Go modules at pinned versions and kept in the user's cache.

A program is a folder below ``go/``: its go.mod names the tools that it is made of (``go build tool``), or it has a main
of its own. The cache key is a hash over those files and the flags, so a version bump builds anew and nothing else does.
"""

import hashlib
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.layout import CACHE, HERE
from tests.cluster.shell import Failed, heartbeat, run, say

KUBERNETES = "v1.37.2"
VERSION_PACKAGE = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Program:
    """What is built from one go.mod."""

    name: str
    makes: tuple[str, ...]
    about: str
    """How long a cold build takes on two cores, after those before it, which compile much of it."""
    tags: str = ""
    flags: str = "-s -w"
    target: str = "tool"


PROGRAMS = (
    Program("kubernetes", ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
                           "kubectl"), "10 min",
            flags=f"-s -w -X {VERSION_PACKAGE}.gitVersion={KUBERNETES} -X {VERSION_PACKAGE}.gitMajor=1 "
            f"-X {VERSION_PACKAGE}.gitMinor={KUBERNETES.split('.')[1]}"),
    Program("containerd", ("containerd", "containerd-shim-runc-v2", "ctr"), "20 s",
            tags="no_btrfs no_devmapper no_zfs"),
    Program("etcd", ("server",), "5 s"),
    Program("cni", ("ptp", "loopback", "host-local"), "20 s"),
    Program("coredns", ("coredns",), "5 s", target="."),
    Program("crane", ("crane",), "20 s"),
    Program("registry", ("registry",), "10 s", target="."),
    Program("provisioner", ("provisioner",), "5 s", target="."),
    Program("helm", ("helm",), "10 s"),
    Program("pause", ("pause",), "2 s", target="."),
)  # fmt: skip
GO_FOLDER = "/usr/local/go/bin"
"""Where Go's own instructions put it, which is not on everybody's PATH."""
FETCHES = (1, 21)
"""The first Go that knows how to get another."""
KWOK = Program("kwok", ("kwok",), "90 s")
POLICIES = Program("policies", ("kube-router",), "3 min")
KUEUE = Program("kueue", ("kueue",), "3 min", target=".")
COSIGN = Program("cosign", ("cosign",), "4 min")
ORAS = Program("oras", ("oras",), "30 s")
"""These are built by the tests that need them."""


def folder(program: Program) -> Path:
    """Where a program's binaries are kept."""
    recipe = hashlib.sha256(f"{program.makes}{program.tags}{program.flags}{program.target}".encode())
    for path in sorted((HERE / "go" / program.name).iterdir()):
        recipe.update(path.name.encode() + path.read_bytes())
    return CACHE / "bin" / f"{program.name}-{recipe.hexdigest()[:12]}"


def binary(name: str) -> Path:
    """Path of a built binary."""
    program = next(p for p in (*PROGRAMS, KWOK, POLICIES, KUEUE, COSIGN, ORAS) if name in p.makes)
    return folder(program) / name


def go() -> str:
    """The Go command. Raises Failed where there is none that can build the programs."""
    need, seen = needed_go(), []
    for found in dict.fromkeys(filter(None, (shutil.which("go"), shutil.which("go", path=GO_FOLDER)))):
        have = _version(run(found, "version", check=False))
        if have >= need or (have >= FETCHES and _fetches(found)):
            return found
        seen.append(f"{found} is {_dotted(have) or 'of an unknown version'}")
    there = "; ".join(seen) or "there is none"
    raise Failed(f"Go {_dotted(need)} or newer is needed to build the cluster's programs, {there} (Debian 12 has 1.19): "
                 "unpack the archive from https://go.dev/dl to /usr/local/go and run this again")  # fmt: skip


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def needed_go() -> tuple[int, ...]:
    """The newest Go that a go.mod asks for."""
    return max(_version(path.read_text()) for path in (HERE / "go").glob("*/go.mod"))


def _version(text: str) -> tuple[int, ...]:
    """Of a go.mod, or of what ``go version`` says; empty, which is less than any, where there is none."""
    found = re.search(r"(?:^go |\bgo)(\d+)\.(\d+)(?:\.(\d+))?", text, re.MULTILINE)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def _fetches(command: str) -> bool:
    """Whether this Go gets a newer one by itself where a go.mod asks for it."""
    said = run(command, "env", "GOTOOLCHAIN", check=False).strip()
    return said == "auto" or said.endswith("+auto")


def build(*programs: Program) -> None:
    """Build what is missing. An interrupted build leaves nothing behind that looks whole."""
    for program in programs or PROGRAMS:
        done = folder(program)
        if done.exists():
            continue
        compiler = go()
        left = [p.name for p in programs or PROGRAMS if not folder(p).exists()]
        say(f"building {program.name}, about {program.about} on two cores ({len(left) - 1} more programs after it)")
        begun = time.monotonic()
        done.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=done.parent, prefix=f".{program.name}-") as scratch:
            source, out = Path(scratch, "source"), Path(scratch, "bin")
            shutil.copytree(HERE / "go" / program.name, source)
            out.mkdir()
            tags = ["-tags", program.tags] if program.tags else []
            with heartbeat(f"building {program.name}", f"of about {program.about}"):
                run("env", "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", compiler, "-C", source, "build", "-trimpath",
                    "-buildvcs=false", *tags, "-ldflags", program.flags, "-o", f"{out}/", program.target)  # fmt: skip
            missing = [name for name in program.makes if not (out / name).exists()]
            if missing:
                raise Failed(f"{program.name}: the build made no {', '.join(missing)}")
            out.rename(done)
        say(f"built {program.name} in {time.monotonic() - begun:.0f} s")
