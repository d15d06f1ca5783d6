"""What the local cluster needs of a machine: said at the start with its remedy, not after minutes of building."""

import os
import shutil
import subprocess

from tests.cluster.binaries import PROGRAMS, folder, go
from tests.cluster.layout import STATE
from tests.cluster.shell import Failed, run, say

PACKAGES = {"runc": "runc", "ip": "iproute2", "nft": "nftables", "iptables": "iptables", "ipset": "ipset",
            "openssl": "openssl", "conntrack": "conntrack", "nsenter": "util-linux", "mount": "mount"}  # fmt: skip
DISK_GIB, BUILD_GIB, MEMORY_GIB = 10, 10, 6
"""Of disk: images in the registry, in the builder and on three nodes; and what Go keeps while it builds the programs."""
AGAIN_GIB = 2
"""Of disk, where a cluster has been: what it needs lies there already."""
OWN = "set KUBECONFIG to a cluster of yours"


def preflight() -> None:
    """Say at once what is missing, all of it, and install what can be installed."""
    building = not all(folder(program).exists() for program in PROGRAMS)
    problems = [problem for problem in (_root(), _memory(), _disk(building), _go(building)) if problem]
    if problems:
        raise Failed("\n".join(problems))
    missing = sorted({package for tool, package in PACKAGES.items() if not _which(tool)})
    if missing:
        if not shutil.which("apt-get"):
            raise Failed(f"missing: {', '.join(missing)}; install them")
        say(f"installing {', '.join(missing)}")
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def _root() -> str | None:
    if os.geteuid() == 0:
        return None
    return f"the local cluster needs root: it makes network namespaces and mounts; be root, or {OWN}"


def _memory() -> str | None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if memory >= MEMORY_GIB:
        return None
    return f"{memory:.1f} GiB of memory, {MEMORY_GIB} are needed; take a machine with more, or {OWN}"


def _disk(building: bool) -> str | None:
    place = STATE
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    needed = (AGAIN_GIB if (STATE / "registry").exists() else DISK_GIB) + (BUILD_GIB if building else 0)
    if free >= needed:
        return None
    return f"{free:.1f} GiB free at {place}, {needed} are needed; free some, or set SLMOPS_CLUSTER_DIR to a larger disk"


def _go(building: bool) -> str | None:
    """Only where something is to be built: what was built runs without it."""
    if building:
        try:
            go()
        except Failed as failed:
            return str(failed)
    return None


def _which(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
