"""``python -m bench reconcile``: our operator and a naive one, the same FineTunes, one after the other.

The objects are there before an operator starts, so the operator is what is waited for. Both are processes of this machine
with the administrator's credentials, on the same API server; Jobs are carried out by the real Job controller and
scheduler on nodes whose kubelet is simulated. Clocks and counts are taken from outside: phases from a watch, CPU from
/proc, writes from the audit log.

    taken up     every object has its Job and its first phase; the operator's own work decides
    whole life   every object has succeeded; the Job controller's pace has a say too
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import lives
from bench.api import Api, all_of
from bench.audit import Write, by_resource, writes
from bench.figures import Figure, mb
from bench.place import (
    CLUSTER,
    ENVIRONMENT,
    drop_namespace,
    ensure_kinds,
    fresh_namespace,
    operator_aside,
    operator_command,
    simulated_nodes,
)
from bench.process import Process
from demo.steps import ROOT, Kubectl

SETTLE = 5.0
"""Convergence is when all have succeeded and this has passed: Events are posted behind the writes that they tell of."""
QUIET = 60.0
"""The minute after convergence."""
LIMIT = 1800.0
STATUS = "finetunes/status"


@dataclass(frozen=True)
class Contender:
    """An operator to measure."""

    name: str
    agents: tuple[str, ...]
    """How its requests begin their user agent."""
    command: Callable[[str, Path], list[str]]
    """From a namespace, and a folder of its own."""


def _ours(namespace: str, folder: Path) -> list[str]:
    return operator_command(folder, namespace, logLevel="warning")


def _naive(namespace: str, folder: Path) -> list[str]:
    script = ROOT / "bench" / "naive.py"
    return [sys.executable, "-m", "kopf", "run", "--standalone", "--quiet", "--namespace", namespace, str(script)]


CONTENDERS = (
    Contender("slmops", ("slmops",), _ours),
    Contender("naive", ("kopf/", "OpenAPI-Generator/"), _naive),
)


@dataclass(frozen=True)
class Measured:
    """What one operator did with all objects."""

    objects: int
    first: float
    """Seconds from the process's start to the first phase."""
    taken_up: float
    whole: float
    cpu_taken_up: float
    cpu_whole: float
    cpu_quiet: float
    phase_changes: int
    writes: Sequence[Write]
    quiet: Sequence[Write]
    rss: int
    peak: int
    others: Mapping[str, int] = field(default_factory=dict)
    """Status writes that changed no phase, by what they changed."""

    @property
    def throughput(self) -> float:
        """Objects taken up in a second, the process's start counted in."""
        return self.objects / self.taken_up

    @property
    def cpu_each(self) -> float:
        """CPU seconds an object, over its whole life."""
        return self.cpu_whole / self.objects

    @property
    def status_writes(self) -> int:
        """Writes of a FineTune's status."""
        return sum(write.resource == STATUS for write in self.writes)

    @property
    def status_writes_each(self) -> float:
        """Status writes for each change of a phase."""
        return self.status_writes / self.phase_changes


def run(objects: int) -> list[Figure]:
    """Measure both and judge ours."""
    kubectl = Kubectl(CLUSTER)
    ensure_kinds(kubectl)
    with operator_aside(kubectl), simulated_nodes():
        ours, naive = asyncio.run(_both(kubectl, objects))
    for contender, found in zip(CONTENDERS, (ours, naive), strict=True):
        print(_told(contender.name, found), flush=True)
    return judge(ours, naive)


def judge(ours: Measured, naive: Measured) -> list[Figure]:
    """The figures with their targets."""
    faster = ours.throughput / naive.throughput
    cheaper = ours.cpu_each / naive.cpu_each
    return [
        Figure("reconcile throughput", "at least 2x the naive operator's",
               f"{ours.throughput:.0f} against {naive.throughput:.0f} objects/s: {faster:.1f}x", faster >= 2),
        Figure("operator CPU per object", "at most half the naive operator's",
               f"{ours.cpu_each * 1000:.1f} against {naive.cpu_each * 1000:.1f} ms: {cheaper:.0%}", cheaper <= 0.5),
        Figure("whole life of all objects", "", f"{ours.whole:.0f} against {naive.whole:.0f} s"),
        Figure("status writes per phase change", "at most 1",
               f"{ours.status_writes_each:.3f} (naive {naive.status_writes_each:.3f})", ours.status_writes_each <= 1),
        Figure("writes per object", "", f"{len(ours.writes) / ours.objects:.1f} against "
               f"{len(naive.writes) / naive.objects:.1f}"),
        Figure("writes in the minute after convergence", "0",
               f"{len(ours.quiet)} (naive {len(naive.quiet)})", not ours.quiet),
        Figure(f"operator RSS after {ours.objects} lives", "",
               f"{mb(ours.rss)}, at most {mb(ours.peak)} (naive {mb(naive.rss)}, {mb(naive.peak)})"),
    ]  # fmt: skip


async def _both(kubectl: Kubectl, objects: int) -> list[Measured]:
    async with Api(CLUSTER.kubeconfig) as api:
        return [await measure(kubectl, api, contender, objects) for contender in CONTENDERS]


async def measure(kubectl: Kubectl, api: Api, contender: Contender, objects: int) -> Measured:
    """Everything of one operator, from an empty namespace to an empty cluster."""
    namespace = f"slmops-bench-{contender.name}"
    await fresh_namespace(kubectl, api, namespace)
    try:
        where = lives.path(namespace)
        await all_of(api.create(where, lives.fine_tune(namespace, index)) for index in range(objects))
        seen = lives.Lives(api, namespace)
        with tempfile.TemporaryDirectory() as folder:
            return await _live(kubectl, contender, namespace, seen, objects, Path(folder))
    finally:
        await drop_namespace(kubectl, api, namespace)


async def _live(
    kubectl: Kubectl, contender: Contender, namespace: str, seen: lives.Lives, objects: int, folder: Path
) -> Measured:
    process = Process(contender.name, contender.command(namespace, folder), ENVIRONMENT, folder / "log")
    async with asyncio.TaskGroup() as group:
        following = group.create_task(seen.follow())
        await seen.listed.wait()
        since, begun = time.time(), time.monotonic()
        with process:
            taken_up = await seen.until(objects, bool, process.check, LIMIT)
            cpu_taken_up = process.cpu()
            whole = await seen.until(objects, lambda phase: phase == "Succeeded", process.check, LIMIT)
            await asyncio.sleep(SETTLE)
            cpu_whole, converged = process.cpu(), time.time()
            await asyncio.sleep(QUIET)
            cpu_quiet = process.cpu() - cpu_whole
            rss, peak = process.memory()
            process.check()
        following.cancel()
    found = writes(CLUSTER.audit_log, namespace, contender.agents, since)
    assert seen.began is not None
    return Measured(
        objects=objects, first=seen.began - begun, taken_up=taken_up - begun, whole=whole - begun,
        cpu_taken_up=cpu_taken_up, cpu_whole=cpu_whole, cpu_quiet=cpu_quiet, phase_changes=seen.changes,
        writes=[write for write in found if write.at <= converged],
        quiet=[write for write in found if converged < write.at <= converged + QUIET], rss=rss, peak=peak,
        others=dict(seen.others),
    )  # fmt: skip


def _told(name: str, found: Measured) -> str:
    lines = [
        f"{name}: {found.objects} FineTunes",
        f"  first phase after {found.first:.1f} s, all taken up after {found.taken_up:.1f} s "
        f"({found.throughput:.0f}/s, {found.cpu_taken_up:.1f} s CPU), all succeeded after {found.whole:.1f} s "
        f"({found.cpu_whole:.1f} s CPU, {found.cpu_each * 1000:.1f} ms each)",
        f"  {found.phase_changes} phase changes, {found.status_writes} status writes; RSS {mb(found.rss)}, at most "
        f"{mb(found.peak)}",
        *(f"  {count:6} status writes without a change of phase, {what}" for what, count in found.others.items()),
        *(f"  {count:6} {what}" for what, count in by_resource(found.writes).items()),
        f"  in the minute after: {by_resource(found.quiet) or 'no write'}, {found.cpu_quiet:.2f} s CPU",
    ]
    return "\n".join(lines)
