"""A rollout under everything that happens to a fleet, in any order, with the operator killed at any write.

Hypothesis chooses who does the next small step: the operator, a controller, a kubelet, a person, bad luck. After each
step the promises to users are checked, and in the end, when everybody has come back, that the right thing runs.
"""

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.api.base import share_of
from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout import revision
from slmops.rollout.children import barred
from slmops.state import LABEL_POOL, LABEL_REVISION, LABEL_ROLE, LABEL_TRACK, Manifest
from tests.properties.valid import check_plan
from tests.unit.copies import fresh
from tests.unit.edgemachines import named
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import SETTINGS, manifest

MODELS = ("good-1", "good-2", "good-3", "slow-1", "lame-1", "noisy-1", "silent-1", "crashing-1", "broken-1")
DOUBTFUL = ("noisy", "silent")
"""Nothing can be said of these, nor of what is compared with them."""
WAVES: list[list[Manifest]] = [
    [{"name": "all", "nodes": "100%"}],
    [{"name": "canary", "nodes": 1}, {"name": "rest", "nodes": "100%"}],
    [{"name": "canary", "nodes": 1}, {"name": "half", "nodes": "50%", "approval": "Required"},
     {"name": "rest", "nodes": "100%", "approval": "Required"}],
    [{"name": "canary", "nodes": 1}, {"name": "half", "nodes": "50%", "soak": "1m"}, {"name": "rest", "nodes": "100%"}],
]  # fmt: skip
CLASSES = ("small", "big")
POOLS = ("farms", "barns")
WEIGHTS = {
    "time": 1, "everybody": 10, "operator": 3, "killed_operator": 3, "daemon_set_controller": 3, "garbage_collector": 1,
    "job_controller": 2, "kubelet": 4, "deploy": 1, "pause": 1, "retry": 1, "approve": 2, "promote": 1, "abort": 1,
    "retry_failed": 1, "pools": 1, "offline": 2, "online": 3, "join": 1, "leave": 1, "relabel": 1, "crash": 1, "evict": 1,
}  # fmt: skip
"""How often each is the one to act."""
ACTORS = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
STEPS = st.lists(st.tuples(st.sampled_from(ACTORS), st.integers(0, 999)), min_size=20, max_size=50)
"""Who acts, one after the other, and the number of the step."""


class Fleet:
    """The steps, and what must hold after each. The number of a step says which node, pod or model it is about."""

    def __init__(
        self, pools: tuple[str, ...], waves: list[Manifest], at_once: int, size: int, scope: str, cut_over: str
    ) -> None:
        strategy = {"waves": waves, "maxUnavailable": at_once, "progressDeadline": "10h", "promotionScope": scope,
                    "cutOver": cut_over}  # fmt: skip
        self.stops = cut_over == "StopThenDownload"
        self.world = World({}, pools=pools, strategy=strategy)
        for index in range(size):
            self.world.join(f"n{index}", CLASSES[index % 2], pools[index % len(pools)])
        self.spec = fresh(self.world.parent["spec"])
        self.joined = size
        self.served: set[str] = set()
        self.shaken: set[str] = set()
        self.moved: set[str] = set()
        self.measured: set[tuple[str, str, str]] = set()
        self.in_full: set[str] = set()
        self.aborted: set[str] = set()

    def step(self, actor: str, number: int) -> None:
        """One step, and all checks."""
        getattr(self, actor)(number)
        assert self.world.parent["spec"] == self.spec, "the spec is the user's"
        self.check_service()

    # --- who acts

    def operator(self, number: int) -> None:
        self._pass()
        # What it decides from now on, it decides knowing; what it has taken away before is still to be carried out.
        self.shaken = {name for name in self.shaken if self._on_its_way_out(name)}

    def killed_operator(self, number: int) -> None:
        self.world.kill_after = number % 5
        self._pass()
        self.world.kill_after = None

    def _pass(self) -> None:
        before = _State(self.world)
        self.world.operate()
        check_plan(self.world.plan, EdgeDeployment.model_validate(self.world.parent))
        self.check_starts(before)
        self.check_promotion(before)

    def everybody(self, number: int) -> None:
        for _ in range(1 + number % 4):
            self.operator(0)
            for found in self.world.of_kind("DaemonSet"):
                self.world.daemon_set(found)
                self.check_service()
            self.world.collect()
            self.world.jobs()
            for name in list(self.world.nodes):
                self.world.kubelet(name)
            self.world.advance(1)
            self.check_service()

    def daemon_set_controller(self, number: int) -> None:
        if found := _pick(self.world.of_kind("DaemonSet"), number):
            self.world.daemon_set(found)

    def garbage_collector(self, number: int) -> None:
        self.world.collect()

    def job_controller(self, number: int) -> None:
        self.world.jobs()

    def kubelet(self, number: int) -> None:
        if name := _pick(sorted(self.world.nodes), number):
            self.world.kubelet(name)

    def time(self, number: int) -> None:
        self.world.advance(number % 90)

    def deploy(self, number: int) -> None:
        self.world.deploy(_pick(MODELS, number))
        self.spec["model"] = fresh(self.world.parent["spec"]["model"])

    def pause(self, number: int) -> None:
        self.spec["paused"] = number % 2 == 0
        self.world.change(paused=self.spec["paused"])

    def retry(self, number: int) -> None:
        self.world.retry("ab"[number % 2])

    def approve(self, number: int) -> None:
        wave = _pick(self.spec["strategy"]["waves"], number)["name"]
        self.world.say(approve=f"{self._candidate()}/{wave}")

    def promote(self, number: int) -> None:
        self.world.say(promote=self._candidate())
        self.in_full.add(self._candidate())

    def abort(self, number: int) -> None:
        self.world.say(abort=self._candidate())
        self.aborted.add(self._candidate())

    def retry_failed(self, number: int) -> None:
        self.world.say(retry_failed="ab"[number % 2])

    def _candidate(self) -> str:
        """What people see in the status; it may be another one by the time that the operator reads what they say."""
        return str((self.world.parent["status"].get("candidate") or {}).get("revision"))

    def pools(self, number: int) -> None:
        self.spec["pools"] = self.placed(manifest(pools=POOLS[: 1 + number % 2])["spec"]["pools"])
        self.world.change(pools=fresh(self.spec["pools"]))
        self.moved |= set(self.world.members(POOLS[1]))

    def offline(self, number: int) -> None:
        if name := _pick(sorted(self.world.nodes), number):
            self.world.offline(name)
            self.served.discard(name)

    def online(self, number: int) -> None:
        if name := _pick([n for n in sorted(self.world.nodes) if not self.world.is_online(n)], number):
            self.world.online(name)

    def join(self, number: int) -> None:
        if len(self.world.nodes) < 6:
            self.world.join(f"n{self.joined}", _pick(CLASSES, number), _pick((*POOLS, None), number))
            self.joined += 1

    def leave(self, number: int) -> None:
        if name := _pick(sorted(self.world.nodes), number):
            self.world.leave(name)
            self.served.discard(name)

    def relabel(self, number: int) -> None:
        if name := _pick(sorted(self.world.nodes), number):
            self.world.relabel(name, _pick((*POOLS, None), number))
            self.moved.add(name)

    def crash(self, number: int) -> None:
        """Less often than what counts as a crash loop."""
        pod = self._server(number)
        if pod and pod["status"]["containerStatuses"][0]["restartCount"] < 2:
            self.world.crash(pod)

    def evict(self, number: int) -> None:
        if pod := self._server(number):
            self.world.evict(pod)

    def _server(self, number: int) -> Manifest | None:
        pods = [pod for name in sorted(self.world.nodes) for pod in self.world.pods_on(name, "serve")]
        pod = _pick([pod for pod in pods if pod["spec"].get("nodeName")], number)
        if pod:
            self.shaken.add(pod["spec"]["nodeName"])
        return pod

    # --- what must hold

    def check_service(self) -> None:
        """A node that has served serves, unless it or its server itself failed."""
        world = self.world
        self.moved = {name for name in self.moved & set(world.nodes) if self._between_pools(name)}
        excused = self.shaken | self.moved | {n for n in self.served if n not in world.nodes}
        self.served -= excused
        for name in () if self.stops else self.served:  # with one server a node, the end tells whether all have theirs
            assert world.serving(name) or not world.is_online(name), f"{name} serves no more"
        self.served |= {n for n in world.nodes if world.is_online(n) and world.serving(n)} - excused
        if world.parent["status"].get("failed"):  # where there is nothing to go back to
            pools = {pool["name"] for pool in self.spec["pools"]}
            bare = pools - {
                self.in_spec(labels[LABEL_POOL]) for labels in _sets(world) if labels[LABEL_TRACK] == "stable"
            }
            self.served -= {name for pool in bare for name in world.members(pool, online=False)}
        for job in world.of_kind("Job"):
            labels = job["metadata"]["labels"]
            if labels[LABEL_ROLE] == "bench" and job.get("status", {}).get("completionTime"):
                name = job["metadata"]["annotations"]["slmops.dev/node"].removesuffix(".local")
                if name in world.nodes:
                    self.measured.add((labels[LABEL_REVISION], labels[LABEL_POOL], self._hardware(name)))

    def _on_its_way_out(self, name: str) -> bool:
        """Whether a server of the node has lost its DaemonSet."""
        known = {pod["metadata"]["uid"] for pod in self.world.observed().pods}
        return any(pod["metadata"]["uid"] not in known for pod in self.world.pods_on(name, "serve"))

    def _between_pools(self, name: str) -> bool:
        """Whether servers of a pool that the node is in no more, or that was taken out of the spec, are still there."""
        label = self.world.nodes[name]["metadata"]["labels"].get("pool")
        pool = label if label in [pool["name"] for pool in self.spec["pools"]] else None
        pods = self.world.pods_on(name, "serve")
        known = {pod["metadata"]["uid"] for pod in self.world.observed().pods}
        return any(
            self.in_spec(p["metadata"]["labels"][LABEL_POOL]) != pool or p["metadata"]["uid"] not in known for p in pods
        )

    def placed(self, pools: list[Manifest]) -> list[Manifest]:
        """The pools, with what is wanted of each."""
        return pools

    def in_spec(self, pool: str) -> str:
        """The pool by its name in the spec."""
        return pool

    def check_starts(self, before: "_State") -> None:
        """A node's turn begins only where the wave has room for it, and never too many at once."""
        for key in set(self.world.objects) - before.keys:
            labels = self.world.objects[key]["metadata"]["labels"]
            if key[0] != "Job" or labels[LABEL_ROLE] != "pull":
                continue
            if self.stops and self.world.objects[key]["metadata"]["annotations"]["slmops.dev/node"] in before.barred:
                continue  # its turn has begun already, with the end of its server
            pool, revision = labels[LABEL_POOL], labels[LABEL_REVISION]
            assert not self.spec.get("paused"), "a turn began on a pause"
            begun = _begun(self.world, pool, revision) - before.out(pool, revision)
            done = before.serving(pool, revision)
            if revision in before.stable:  # nodes that are late; on others it is just there
                late = begun & {n for n in begun if not self._proven(revision, pool, n)}
                assert len(late - done) <= self.spec["strategy"]["maxUnavailable"], "too many late ones at once"
                continue
            assert len(begun - done) <= self.spec["strategy"]["maxUnavailable"], "too many at once"
            assert len(begun) <= before.allowed(self.spec["strategy"]["waves"], revision, pool), "beyond the wave"
            assert not before.unapproved(self.spec["strategy"]["waves"], revision), "without its approval"

    def check_promotion(self, before: "_State") -> None:
        """What becomes stable serves on every node that is online, and was measured on every class."""
        for promoted in _stable(self.world) - before.stable:
            assert not self.spec.get("paused")
            classes = set()
            for pool in self.spec["pools"]:
                online = set(self.world.members(pool["name"])) - before.out(pool["name"], promoted)
                assert before.serving(pool["name"], promoted) - before.out(pool["name"], promoted) == online
                found = {self._hardware(name) for name in online}
                measured = all((promoted, pool["name"], hardware) in self.measured for hardware in found)
                assert measured or promoted in self.in_full, "a benchmark that failed is a doubt, too"
                classes |= found
            model = _model(self.spec)
            doubtful = model.startswith(DOUBTFUL) and (promoted in self.in_full or promoted in before.known)
            good = doubtful or model.startswith("good") or (model == "lame-1" and "small" not in classes)
            assert good, f"{model} was promoted"

    def _proven(self, revision: str, pool: str, name: str) -> bool:
        return (revision, pool, self._hardware(name)) in self.measured

    def _hardware(self, name: str) -> str:
        return str(self.world.nodes[name]["metadata"]["labels"]["slmops.dev/hardware-class"])

    def end(self) -> None:
        """Everybody comes back, and the right thing runs."""
        self.come_back()
        check_end(self.world, self.spec, self.in_full)
        at_rest(self.world)

    def come_back(self) -> None:
        """All nodes are there, and people say yes."""
        world = self.world
        for name in world.nodes:
            world.online(name)
        self.pause(1)
        world.settle()
        if world.condition("Progressing")["reason"] == "BenchmarkFailed":
            world.retry("once more")  # a server that was taken away while it was measured
            world.settle()
        if world.status["phase"] == "Degraded" and self.aborted & set(world.status["failed"]):
            world.retry("and once more")
            world.settle()
        for _ in self.spec["strategy"]["waves"]:
            if world.status["phase"] == "Waiting":
                world.say(approve=world.status["wave"]["approval"])
                world.settle()


def check_end(world: World, spec: Manifest, in_full: Collection[str] = ()) -> None:
    """The right thing runs on every node, and nothing is left over."""
    model, stable = _model(spec), world.status.get("stable")
    found = revision.wanted(EdgeDeployment.model_validate(world.parent), world.observed(), SETTINGS)
    assert isinstance(found, revision.Revision)
    wanted = found.name
    tracks = {(labels[LABEL_TRACK], labels[LABEL_REVISION], labels[LABEL_POOL])
              for labels in (child["metadata"]["labels"] for child in world.of_kind("DaemonSet"))}  # fmt: skip
    pools = [pool["name"] for pool in spec["pools"]]
    if not any(world.members(pool) for pool in pools):
        return
    if stable and stable["revision"] == wanted and stable.get("failed"):
        # It came to hardware on which it is not good enough, which keeps what it has.
        assert world.status["phase"] == "Degraded", world.status
        assert model == "lame-1" or wanted in in_full
        assert all("small" in failed for failed in stable["failed"].values())
    elif stable and stable["revision"] == wanted:
        assert world.status["phase"] == "Ready", world.status
        if any(each["verdict"] == "Inconclusive" for pool in world.status["pools"] for each in pool["classes"]):
            assert model.startswith(DOUBTFUL)
            return  # a node that came late waits for a person
        assert tracks == {("stable", wanted, pool) for pool in pools}
        assert not [job for job in world.of_kind("Job") if job["metadata"]["labels"][LABEL_ROLE] == "pull"]
    elif model.startswith(DOUBTFUL) or (world.status["phase"] == "Paused" and _image(stable).startswith(DOUBTFUL)):
        assert world.status["phase"] == "Paused", world.status
        assert world.condition("Progressing")["reason"] == "GateInconclusive"
    else:
        assert not model.startswith("good"), world.status
        assert world.status["phase"] == "Degraded", world.status
        assert wanted in world.status["failed"]
        assert not [found for found in tracks if wanted in found]
    for track, name, pool in tracks:
        if track == "stable":  # a pool that is new to the spec has none, until something passes
            assert name == stable["revision"]
            for member in world.members(pool):
                hardware = world.nodes[member]["metadata"]["labels"]["slmops.dev/hardware-class"]
                failed = (stable.get("failed") or {}).get(pool, {})
                if hardware in failed or (failed and spec["strategy"]["promotionScope"] == "Pool"):
                    kept = (stable.get("behind") or {}).get(pool, {}).get(hardware)
                    assert world.revisions(member) == {kept} or not kept, "what it has, if nobody knows better"
                    continue
                if hardware not in (stable.get("classes") or {}).get(pool, [hardware]):
                    kept = (stable.get("behind") or {}).get(pool, {}).get(hardware)
                    assert world.revisions(member) & {kept, name}, "its turn comes when the spec is about it again"
                    continue
                assert named(stable["images"][pool]) in world.serving(member)
                assert len(world.pods_on(member, "serve")) == 1 or world.status["phase"] == "Paused"


def at_rest(world: World) -> None:
    """Further passes write nothing."""
    version = world.version
    for _ in range(3):
        assert world.operate() == 0, world.plan
        world.advance(60)
    assert world.version == version


class _State:
    """What the operator could see before its pass."""

    def __init__(self, world: World) -> None:
        self.keys = set(world.objects)
        self.stable = _stable(world)
        hosts = [f"{name}.local" for name in world.nodes]
        stable = [s for s in world.of_kind("DaemonSet") if s["metadata"]["labels"][LABEL_TRACK] == "stable"]
        self.barred = {host for found in stable for host in barred(found, hosts)}
        self.pools = [pool["name"] for pool in world.parent["spec"]["pools"]]
        self.online = [world.nodes[name] for pool in self.pools for name in world.members(pool)]
        self.members = {pool: set(world.members(pool)) for pool in self.pools}
        self.hardware = {
            name: found["metadata"]["labels"]["slmops.dev/hardware-class"] for name, found in world.nodes.items()
        }
        status, self.said = world.parent["status"], dict(world.parent["metadata"]["annotations"])
        self.known = {known["revision"] for known in status.get("history") or ()}
        seen = [*(status.get("history") or ()), status.get("candidate")]
        self.failed = {known["revision"]: known.get("failed") or {} for known in seen if known}
        self.whole = world.parent["spec"]["strategy"].get("promotionScope") == "Pool"
        self._ready: dict[tuple[str, str], set[str]] = {}
        for pod in world.pods.values():
            labels, name = pod["metadata"]["labels"], pod["spec"].get("nodeName")
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
            if labels[LABEL_ROLE] == "serve" and ready and "deletionTimestamp" not in pod["metadata"]:
                self._ready.setdefault((labels[LABEL_POOL], labels[LABEL_REVISION]), set()).add(name)

    def out(self, pool: str, revision: str) -> set[str]:
        """Nodes that a revision is not tried on, as the status says."""
        failed = self.failed.get(revision, {}).get(pool, {})
        return {name for name, hardware in self.hardware.items() if hardware in failed or (self.whole and failed)}

    def serving(self, pool: str, revision: str) -> set[str]:
        """Online nodes of the pool that serve the revision."""
        return self._ready.get((pool, revision), set()) & self.members[pool]

    def allowed(self, waves: list[Manifest], revision: str, pool: str) -> int:
        """How many nodes of a pool may have the revision: the number of the wave that it is in."""
        return self.wants(waves[-1] if self.fast(revision) else self.wave(waves, revision), pool, revision)

    def wants(self, wave: Manifest, pool: str, revision: str) -> int:
        """How many nodes of a pool have the revision at the end of a wave: one of each class from the first one on."""
        left = self.members[pool] - self.out(pool, revision)
        return max(share_of(wave["nodes"], len(left)), len({self.hardware[name] for name in left}))

    def wave(self, waves: list[Manifest], revision: str) -> Manifest:
        """The first wave whose number some pool has not reached."""
        for wave in waves:
            if any(
                len(self.serving(p, revision) - self.out(p, revision)) < self.wants(wave, p, revision)
                for p in self.pools
            ):
                return wave
        return waves[-1]

    def fast(self, revision: str) -> bool:
        """Whether it waits for nothing."""
        return revision in self.known or self.said.get("slmops.dev/promote") == revision

    def unapproved(self, waves: list[Manifest], revision: str) -> bool:
        """Whether its wave has to be approved and is not."""
        wave = self.wave(waves, revision)
        later = [f"{revision}/{found['name']}" for found in waves[waves.index(wave) :]]
        return "approval" in wave and not self.fast(revision) and self.said.get("slmops.dev/approve") not in later


def _begun(world: World, pool: str, revision: str) -> set[str]:
    """Online nodes that have anything of the revision; a pod whose DaemonSet is gone is on its way out."""
    found, kept = set(), {pod["metadata"]["uid"] for pod in world.observed().pods}
    for name in world.members(pool):
        jobs = [j for j in world.of_kind("Job") if j["metadata"]["annotations"]["slmops.dev/node"] == f"{name}.local"]
        pods = [pod for pod in world.pods_on(name, "serve") if pod["metadata"]["uid"] in kept]
        labels = [child["metadata"]["labels"] for child in [*jobs, *pods]]
        if any((found_[LABEL_POOL], found_[LABEL_REVISION]) == (pool, revision) for found_ in labels):
            found.add(name)
    return found


def _stable(world: World) -> set[str]:
    return {labels[LABEL_REVISION] for labels in _sets(world) if labels[LABEL_TRACK] == "stable"}


def _sets(world: World) -> list[Manifest]:
    """Labels of all DaemonSets."""
    return [child["metadata"]["labels"] for child in world.of_kind("DaemonSet")]


def _model(spec: Manifest) -> str:
    return named(spec["model"]["image"])


def _image(known: Manifest | None) -> str:
    """The model of a revision in status; the same in all pools."""
    return named(next(iter((known or {}).get("images", {}).values()), "none"))


def _pick(items: list[Any], which: int) -> Any:
    return items[which % len(items)] if items else None


@pytest.mark.parametrize(
    ("scope", "at_once", "cut_over"),
    [("All", 1, "DownloadThenStop"), ("All", 2, "DownloadThenStop"), ("Pool", 2, "DownloadThenStop"),
     ("HardwareClass", 1, "DownloadThenStop"), ("All", 1, "StopThenDownload"), ("HardwareClass", 2, "StopThenDownload")],
)  # fmt: skip
@pytest.mark.parametrize("waves", WAVES, ids=len)
@settings(derandomize=True, max_examples=6)
@given(
    pools=st.sampled_from([("farms",), POOLS]), size=st.integers(2, 5), running=st.booleans(),
    first=st.sampled_from(MODELS),
    steps=STEPS,
)  # fmt: skip
def test_whatever_happens_the_fleet_serves_and_ends_with_what_was_proven(
    waves: list[Manifest], scope: str, at_once: int, cut_over: str, pools: tuple[str, ...], size: int, running: bool,
    first: str, steps: list[tuple[str, int]],
) -> None:  # fmt: skip
    fleet = Fleet(pools, waves, at_once, size, scope, cut_over)
    if running:
        fleet.world.settle()
    fleet.step("deploy", MODELS.index(first))
    for actor, number in steps:
        fleet.step(actor, number)
    fleet.end()
