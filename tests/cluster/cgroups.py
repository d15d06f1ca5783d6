"""A node's control group: a folder in every hierarchy of cgroup v1, or one in the single hierarchy of v2."""

from pathlib import Path

from tests.cluster.shell import Failed, run

ROOT = Path("/sys/fs/cgroup")
WANTED = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
"""Controllers that a kubelet needs or asks for on v2, where the machine has them."""


def unified() -> bool:
    """Whether the machine has cgroup v2 alone; the hybrid form counts as v1."""
    return (ROOT / "cgroup.controllers").exists()


def make(name: str) -> None:
    """Make the group, able to hold the groups of pods."""
    if unified():
        (ROOT / name).mkdir(exist_ok=True)
        _hand_down(ROOT)
        _hand_down(ROOT / name)
        return
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # v1 starts a group with none
            if (hierarchy / setting).exists() and (group / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())


def processes(name: str) -> set[int]:
    """Everything that runs in the group or below it."""
    found: set[int] = set()
    for hierarchy in _hierarchies():
        for file in (hierarchy / name).rglob("cgroup.procs"):
            try:
                found |= {int(line) for line in file.read_text().split()}
            except OSError:
                continue
    return found


def remove(name: str) -> None:
    """Take the group away, the deepest ones first. One that still holds a process stays."""
    for hierarchy in _hierarchies():
        group = hierarchy / name
        for path in sorted((p for p in group.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
            run("rmdir", path, quiet=True)
        if group.exists():
            run("rmdir", group, quiet=True)


def _hierarchies() -> list[Path]:
    return [ROOT] if unified() else [path for path in ROOT.iterdir() if path.is_dir()]


def _hand_down(group: Path) -> None:
    """Let the groups below have the controllers that this one has."""
    has = (group / "cgroup.controllers").read_text().split()
    given = (group / "cgroup.subtree_control").read_text().split()
    missing = [f"+{name}" for name in WANTED if name in has and name not in given]
    try:
        if missing:
            (group / "cgroup.subtree_control").write_text(" ".join(missing))
    except OSError as error:
        raise Failed(f"{group} cannot hand down {' '.join(missing)}: {error.strerror}; run on the machine itself or in a "
                     "container that owns its control groups") from None  # fmt: skip
