"""The cluster as a whole: what tests, make and the demo use. Nobody needs to know what is behind it."""

import fcntl
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.cluster import controlplane, network, pki, policies
from tests.cluster.binaries import KWOK, PROGRAMS, binary, build
from tests.cluster.controlplane import kubectl
from tests.cluster.kueue import start_kueue, stop_kueue
from tests.cluster.layout import (
    AUDIT_LOG,
    CONFIG,
    KUBECONFIG,
    LOGS,
    NAMESPACES,
    NODES,
    PAUSE,
    POD_RANGE,
    REGISTRY,
    SERVICE_RANGE,
    STATE,
    restricted,
)
from tests.cluster.node import Node
from tests.cluster.preflight import preflight
from tests.cluster.shell import Failed, alive, names, pid, run, say, start, stop, wait

HASTE = ("--kube-api-qps=200", "--kube-api-burst=400")
"""The Job controller's own pace, 20 requests in a second, is three Jobs in a second."""
SYSTEM = ("registry", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns", "provisioner")


class Cluster:
    """A Kubernetes with three nodes and a registry."""

    kubeconfig = KUBECONFIG
    registry = REGISTRY
    plain_http: tuple[str, ...] = (REGISTRY,)
    """Registries that speak HTTP without TLS."""
    internal_ranges: tuple[str, ...] = (POD_RANGE, SERVICE_RANGE)
    """Where pods and Services are; empty where nobody knows."""
    logs = LOGS
    audit_log = AUDIT_LOG

    def __init__(self) -> None:
        self.nodes = [Node(spec) for spec in NODES]

    def node(self, name: str) -> Node:
        """A node by name."""
        return next(node for node in self.nodes if node.name == name)

    def bin(self, name: str) -> Path:
        """One of the cluster's programs: kubectl, helm, crane, …"""
        return binary(name)

    def build(self) -> None:
        """Build what is missing of the programs."""
        build()

    def up(self) -> None:
        """Start what does not run. Safe to repeat, and after a killed run."""
        preflight()
        with _lock():
            build()
            begun = time.monotonic()
            if self.healthy():
                self._namespaces()
                say("it runs, nothing to do")
                self._tell()
                return
            if any(name in SYSTEM and not alive(name) for name in names()):  # what was never started is only missing
                say("cleaning up after a run that ended badly")
                self._stop()
            if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "0":
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            network.up()
            pki.make()
            controlplane.start_registry()
            self._push_pause()
            controlplane.start_etcd()
            controlplane.start_apiserver()
            controlplane.start_rest()
            started = datetime.now(UTC).replace(microsecond=0)
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                wait(f"{node.name} to be Ready", partial(node.comes, started), 60, LOGS / f"kubelet-{node.name}.log")
                node.finish()
            self._namespaces()
            say(f"three nodes Ready in {time.monotonic() - begun:.0f} s")
            self._tell()

    def down(self, purge: bool = False) -> None:
        """Stop everything; with ``purge`` forget it too, the registry's content included."""
        with _lock():
            self._stop()
            if purge:
                shutil.rmtree(STATE, ignore_errors=True)

    def healthy(self) -> bool:
        """Whether every part runs and every node is Ready."""
        parts = [f"{part}-{n.name}" for n in self.nodes for part in ("node", "containerd", "kubelet", "kube-proxy")]
        return all(alive(name) for name in (*SYSTEM, *parts)) and all(node.ready() for node in self.nodes)

    def _namespaces(self) -> None:
        for name in NAMESPACES:
            self.namespace(name)

    def namespace(self, name: str) -> None:
        """A namespace where Pod Security *restricted* is enforced."""
        kubectl("apply", "-f", "-", stdin=restricted(name))

    def stop_apiserver(self) -> None:
        """Take the API server away."""
        stop("kube-apiserver")

    def start_apiserver(self) -> None:
        """Bring the API server back."""
        controlplane.start_apiserver()

    def kwok(self, nodes: int) -> None:
        """Simulated nodes beside the real ones; Jobs on them are completed by a simulated kubelet."""
        build(KWOK)
        stages = Path(__file__).parent / "kwok"
        # Pods get loopback addresses: whoever asks one of them for its progress is refused at once.
        start("kwok", binary("kwok"), "--kubeconfig", KUBECONFIG, "--manage-nodes-with-label-selector", "type=kwok",
              "--config", stages / "stages.yaml", "--cidr", "127.77.0.0/16",
              "--node-lease-duration-seconds", "12")  # fmt: skip
        _restart("kube-controller-manager", HASTE)
        template = (stages / "node.tmpl").read_text()
        kubectl("apply", "-f", "-", stdin="---\n".join(template.format(index=i) for i in range(nodes)))
        wait(
            "the simulated nodes to be Ready", lambda: _ready("type=kwok") == nodes, 30 + nodes / 20, LOGS / "kwok.log"
        )

    def kwok_stop(self) -> None:
        """Take the simulated nodes away."""
        kubectl("delete", "nodes", "-l", "type=kwok", "--ignore-not-found")
        stop("kwok")
        _restart("kube-controller-manager", ())

    def enforce(self) -> None:
        """Enforce NetworkPolicies, which are only stored otherwise."""
        pki.make()
        policies.enforce(self.nodes)

    def enforced(self) -> bool:
        """Whether they are."""
        return policies.enforced(self.nodes)

    def lift(self) -> None:
        """Enforce them no longer."""
        policies.lift(self.nodes)

    def kueue(self) -> None:
        """Kueue beside the control plane; queues are for the caller to make."""
        start_kueue()

    def kueue_stop(self) -> None:
        """Take Kueue away, with its queues."""
        stop_kueue()

    def reset(self) -> None:
        """Undo what a killed test may have left: cut or slow links, full disks, Kueue, simulated nodes, policies."""
        for node in self.nodes:
            node.heal()
            node.unslow()
            node.unfill()
        if kubectl("get", "crd", "workloads.kueue.x-k8s.io", "--ignore-not-found", "-o", "name"):
            stop_kueue()
        if kubectl("get", "nodes", "-l", "type=kwok", "-o", "name"):
            self.kwok_stop()
        if policies.left(self.nodes):
            self.lift()

    def _tell(self) -> None:
        """Where to look, whoever started it."""
        say(f"KUBECONFIG={KUBECONFIG}  logs: {LOGS}")

    def _push_pause(self) -> None:
        """The sandbox image, made of one static program."""
        if run(binary("crane"), "digest", "--insecure", PAUSE, check=False):
            return
        with tempfile.TemporaryDirectory() as folder:
            layer = Path(folder, "layer.tar")
            with tarfile.open(layer, "w") as tar:
                tar.add(binary("pause"), arcname="pause")
            run(binary("crane"), "append", "--insecure", "--new_layer", layer, "--new_tag", PAUSE)
            run(binary("crane"), "mutate", "--insecure", PAUSE, "--entrypoint", "/pause", "--user", "65535:65535",
                "--tag", PAUSE)  # fmt: skip

    def _stop(self) -> None:
        for node in self.nodes:
            node.stop()
        for name in reversed(names()):
            stop(name)
        network.down()


def _restart(name: str, more: tuple[str, ...]) -> None:
    """Start a part again as it was, with these flags besides or without them."""
    number = pid(name)
    if number is None:
        raise Failed(f"{name} does not run; start the cluster with: make cluster")
    command = Path(f"/proc/{number}/cmdline").read_text().split("\0")[:-1]
    stop(name)
    start(name, *(argument for argument in command if argument not in HASTE), *more)


def _ready(selector: str) -> int:
    """How many of these nodes are Ready."""
    status = "{range .items[*]}{.status.conditions[?(@.type=='Ready')].status} {end}"
    return kubectl("get", "nodes", "-l", selector, "-o", f"jsonpath={status}", check=False).split().count("True")


@contextmanager
def _lock() -> Iterator[None]:
    """One at a time: two ``up`` in two terminals are one after the other."""
    STATE.parent.mkdir(parents=True, exist_ok=True)
    with (STATE.parent / "cluster.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


__all__ = ["CONFIG", "PROGRAMS", "Cluster", "Failed"]
