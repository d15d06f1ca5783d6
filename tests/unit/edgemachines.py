"""The machinery of a cluster with edge nodes, in memory: DaemonSet and Job controllers, kubelets, model servers.

Each method is one small step of one actor, so that a test chooses the order. How a model image behaves is said by the
first word of its name, see ``_tokens``.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median

from slmops import contract
from slmops.api.conditions import timestamp
from slmops.state import Manifest
from tests.unit.copies import fresh
from tests.unit.fleet_builders import NOW, pinned

Key = tuple[str, str]
FINGERPRINT = f"sha256:{'ab' * 32}"
"""Of the key that model images are signed with, unless their name begins with ``unsigned``."""


class Machines:
    """The objects, and everybody who works on them but the operator and people."""

    def __init__(self) -> None:
        self.now: datetime = NOW
        self.objects: dict[Key, Manifest] = {}
        self.stuck: dict[str, str] = {}
        """Nodes on which no image is pulled, and what the kubelet says of it."""
        self._has: dict[str, set[str]] = {}
        """Images by node."""
        self.pods: dict[str, Manifest] = {}
        self.nodes: dict[str, Manifest] = {}
        self.published: list[Manifest] = []
        """Documents of evidence."""
        self.version = 0
        """Grows with every change of anything."""
        self._number = 0

    def number(self) -> int:
        """Another one each time."""
        self._number += 1
        return self._number

    def of_kind(self, kind: str) -> list[Manifest]:
        """Children of a kind, by name."""
        return [self.objects[key] for key in sorted(self.objects) if key[0] == kind]

    def is_online(self, name: str) -> bool:
        """Whether the kubelet reports."""
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self.nodes[name]["status"]["conditions"])

    def pods_on(self, name: str, role: str | None = None) -> list[Manifest]:
        """The pods of a node."""
        pods = [pod for pod in self.pods.values() if on(pod) == name]
        return [pod for pod in pods if role in (None, pod["metadata"]["labels"]["slmops.dev/role"])]

    def daemon_set(self, found: Manifest) -> None:
        """One look of the DaemonSet controller: a pod on each node that fits, none elsewhere."""
        uid = found["metadata"]["uid"]
        mine = [pod for pod in self.pods.values() if _owner(pod) == uid and "deletionTimestamp" not in pod["metadata"]]
        by_node = _by_node(mine)
        for name, machine in self.nodes.items():
            here = by_node.get(name, [])
            if _fits(found, machine["metadata"]["labels"]) and not here:
                self._create_pod(found, {"affinity": pinned(name)})
            elif not _fits(found, machine["metadata"]["labels"]):
                for pod in here:
                    self.delete_pod(pod)

    def collect(self) -> None:
        """The garbage collector: pods without an owner."""
        owners = {child["metadata"]["uid"] for child in self.objects.values()}
        for pod in list(self.pods.values()):
            if _owner(pod) not in owners and "deletionTimestamp" not in pod["metadata"]:
                self.delete_pod(pod)

    def jobs(self) -> None:
        """The Job controller."""
        for job in self.of_kind("Job"):
            pods = [pod for pod in self.pods.values() if _owner(pod) == job["metadata"]["uid"]]
            if job.get("status", {}).get("conditions"):
                continue
            if not pods:
                host = (job["spec"]["template"]["spec"].get("nodeSelector") or {}).get("kubernetes.io/hostname")
                if name := self._by_host(host) if host else next(filter(self.is_online, self.nodes), None):
                    self._create_pod(job, {"nodeName": name})
                continue
            ended = pods[0]["status"]["containerStatuses"][0]["state"].get("terminated")
            if ended:
                done = "Complete" if ended["exitCode"] == 0 else "Failed"
                stamp = timestamp(self.now)
                job["status"] = {"conditions": [{"type": done, "status": "True", "lastTransitionTime": stamp}]}
                job["status"] |= {"completionTime": stamp} if ended["exitCode"] == 0 else {}
                self.version += 1

    def kubelets(self) -> None:
        """One look of each."""
        by_node = _by_node(self.pods.values())
        for name in self.nodes:
            self._look(name, by_node.get(name, []))

    def kubelet(self, name: str) -> None:
        """One look of a node's kubelet at its pods; a silent one does nothing."""
        self._look(name, self.pods_on(name))

    def _look(self, name: str, pods: Sequence[Manifest]) -> None:
        if not self.is_online(name):
            return
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                del self.pods[pod["metadata"]["name"]]
                self.version += 1
            elif "nodeName" not in pod["spec"]:
                pod["spec"]["nodeName"] = name
                self.version += 1
            elif name in self.stuck and self._lacks(name, pod):
                self._wait(pod, self.stuck[name])
            elif pod["metadata"]["labels"]["slmops.dev/role"] == "serve":
                self._serve(pod)
            else:
                self._run(pod)

    def _lacks(self, name: str, pod: Manifest) -> bool:
        """Whether a node has to pull an image first."""
        role = pod["metadata"]["labels"]["slmops.dev/role"]
        return role == "pull" or (role == "serve" and model_of(pod) not in self._has.get(name, ()))

    def _wait(self, pod: Manifest, reason: str) -> None:
        (container,) = pod["status"]["containerStatuses"]
        said = {"waiting": {"reason": reason, "message": "it does not come"}}
        self.version += container.get("state") != said
        container["state"] = said

    def _serve(self, pod: Manifest) -> None:
        status = pod["status"]
        (container,) = status["containerStatuses"]
        if status["phase"] == "Pending":
            self._has.setdefault(str(on(pod)), set()).add(model_of(pod))
            status |= {"phase": "Running", "podIP": f"10.0.0.{self.number()}"}
            container["state"] = {"running": {}}
            self.version += 1
        elif model_of(pod).startswith("crashing"):
            container["restartCount"] += container["restartCount"] < 5
            self.version += container["restartCount"] < 5
            return
        else:
            self.set_condition(pod, "ContainersReady", True)
        gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
        self.set_condition(pod, "Ready", all(holds(pod, type) for type in ["ContainersReady", *gates]))

    def _run(self, pod: Manifest) -> None:
        (container,) = pod["status"]["containerStatuses"]
        if "terminated" in container["state"]:
            return
        self.version += 1
        if pod["status"]["phase"] == "Pending":
            pod["status"]["phase"] = "Running"
            container["state"] = {"running": {}}
            return
        does = {
            "bench": self._bench,
            "choose": self._bench,
            "before": self._bench,
            "pull": self._pull,
            "verify": self._verify,
            "evidence": self._evidence,
        }
        report = does[pod["metadata"]["labels"]["slmops.dev/role"]](pod)
        good = report.outcome == "Succeeded"
        pod["status"]["phase"] = "Succeeded" if good else "Failed"
        container["state"] = {"terminated": {"exitCode": 0 if good else 3, "message": report.model_dump_json()}}

    def _pull(self, pod: Manifest) -> contract.Report:
        if model_of(pod).startswith("broken"):
            return contract.Report(outcome="Failed", reason=contract.Reason.UNSUPPORTED_MODEL, message="no *.onnx")
        weights = (3 if model_of(pod).startswith("huge") else 1) << 29
        return contract.Report(outcome="Succeeded", evaluation={"model": contract.Figures(weight_bytes=weights)})

    def _verify(self, pod: Manifest) -> contract.Report:
        (name,) = [v["configMap"]["name"] for v in pod["spec"]["volumes"] if v["name"] == "config"]
        run = contract.VerifyRun.model_validate_json(self.objects["ConfigMap", name]["data"][contract.CONFIG_KEY])
        if any("/unsigned" in source.uri for source in run.images.values()):
            return contract.Report(
                outcome="Failed", reason=contract.Reason.SIGNATURE_MISSING, message="it is not signed"
            )
        return contract.Report(outcome="Succeeded", signer=FINGERPRINT)

    def _evidence(self, pod: Manifest) -> contract.Report:
        (name,) = [v["configMap"]["name"] for v in pod["spec"]["volumes"] if v["name"] == "config"]
        run = contract.EvidenceRun.model_validate_json(self.objects["ConfigMap", name]["data"][contract.CONFIG_KEY])
        self.published.append(run.document)
        made = {
            pool: contract.Artifact(reference=f"{image.partition('@')[0]}@{FINGERPRINT}", size=1)
            for pool, image in run.images.items()
        }
        return contract.Report(outcome="Succeeded", artifacts=made)

    def _bench(self, pod: Manifest) -> contract.Report:
        (name,) = [v["configMap"]["name"] for v in pod["spec"]["volumes"] if v["name"] == "config"]
        if ("ConfigMap", name) not in self.objects:  # taken away with its Job, whose pod is still to be collected
            return contract.Report(outcome="Failed", reason=contract.Reason.TERMINATED)
        run = contract.BenchRun.model_validate_json(self.objects["ConfigMap", name]["data"][contract.CONFIG_KEY])
        targets = {}
        for target in run.targets:
            server = self._server(target.url)
            if target.url.startswith("http://127.0.0.1:") and not model_of(pod).startswith(("broken", "crashing")):
                server = pod
            if server is None or not (server is pod or holds(server, "ContainersReady")):
                return contract.Report(outcome="Failed", reason=contract.Reason.TARGET_UNREACHABLE, message=target.url)
            hardware = self.nodes[str(on(pod))]["metadata"]["labels"]["slmops.dev/hardware-class"]
            speeds = _tokens(model_of(server), hardware)
            rounds = tuple(
                contract.Round(time_to_first_token_seconds=0.1, tokens_per_second=speed, request_seconds=1)
                for speed in speeds
            )
            requests = 20 * len(speeds)
            ends = {"TokensPerSecond": (min(speeds), max(speeds))} if speeds else {}
            targets[target.name] = contract.TargetFigures(rounds=rounds, requests=requests, errors=0, intervals=ends)
        return contract.Report(outcome="Succeeded", targets=targets, statistics=_beside(targets))

    def _server(self, url: str) -> Manifest | None:
        for pod in self.pods.values():
            owner = next((c for c in self.objects.values() if c["metadata"]["uid"] == _owner(pod)), None)
            if owner is None or owner["kind"] != "DaemonSet":
                continue
            run = json.loads(self.objects["ConfigMap", owner["metadata"]["name"]]["data"][contract.CONFIG_KEY])
            if url == f"http://{pod['status'].get('podIP')}:{run['port']}":
                return pod
        return None

    # --- what they share

    def _by_host(self, host: str) -> str | None:
        named = (n for n, m in self.nodes.items() if m["metadata"]["labels"].get("kubernetes.io/hostname") == host)
        return next(named, None)

    def set_node_ready(self, name: str, status: str) -> None:
        """Set a node's condition."""
        condition = next(c for c in self.nodes[name]["status"]["conditions"] if c["type"] == "Ready")
        if condition["status"] != status:
            condition |= {"status": status, "lastTransitionTime": timestamp(self.now)}
            self.version += 1

    def set_condition(self, pod: Manifest, type: str, value: bool) -> None:
        """Set a pod's condition; its time moves when it flips."""
        conditions = pod["status"]["conditions"]
        if holds(pod, type) != value or not any(c["type"] == type for c in conditions):
            conditions[:] = [c for c in conditions if c["type"] != type]
            conditions.append({"type": type, "status": str(value), "lastTransitionTime": timestamp(self.now)})
            self.version += 1

    def _create_pod(self, owner: Manifest, spec: Manifest) -> None:
        template = owner["spec"]["template"]
        name = f"{owner['metadata']['name']}-{self.number()}"
        labels = dict(template["metadata"]["labels"])
        self.pods[name] = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "edge-ai", "uid": f"uid-{name}", "labels": labels,
                         "creationTimestamp": timestamp(self.now), "ownerReferences": [
                             {"kind": owner["kind"], "uid": owner["metadata"]["uid"], "controller": True}]},
            "spec": fresh(template["spec"]) | spec,
            "status": {"phase": "Pending", "conditions": [], "containerStatuses": [
                {"name": "run", "restartCount": 0, "state": {"waiting": {}}}]},
        }  # fmt: skip
        self.version += 1

    def delete_pod(self, pod: Manifest) -> None:
        """At once where the kubelet can confirm it; else the pod stays until the node is back."""
        self.version += 1
        if (name := on(pod)) in self.nodes and not self.is_online(str(name)):
            pod["metadata"]["deletionTimestamp"] = timestamp(self.now)
        else:
            del self.pods[pod["metadata"]["name"]]


def _tokens(model: str, hardware: str) -> Sequence[float]:
    """Tokens a second in three rounds."""
    match model.split("-")[0]:
        case "slow":
            return (10, 10, 10)
        case "lame":
            return (10, 10, 10) if hardware == "small" else (30, 30, 30)
        case "broad":
            return (25, 25, 25) if hardware == "small" else (60, 60, 60)
        case "noisy":
            return (5, 30, 60)
        case "silent":
            return ()
    return (30, 30, 30)


def _beside(targets: dict[str, contract.TargetFigures]) -> contract.Statistics:
    """The candidate as a share of the stable server, all of whose rounds are the same unless it is noisy itself."""
    ours, theirs = ([r.tokens_per_second for r in targets[n].rounds] if n in targets else []
                    for n in ("candidate", "stable"))  # fmt: skip
    if not ours or not theirs:
        return contract.Statistics()
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    found = contract.Paired(ratio=median(ratios), low=ratios[0], high=ratios[-1], pairs=20 * len(ratios))
    return contract.Statistics(paired={"TokensPerSecond": found})


def _owner(pod: Manifest) -> str:
    return str(pod["metadata"]["ownerReferences"][0]["uid"])


def _by_node(pods: Iterable[Manifest]) -> dict[str | None, list[Manifest]]:
    found: dict[str | None, list[Manifest]] = {}
    for pod in pods:
        found.setdefault(on(pod), []).append(pod)
    return found


def on(pod: Manifest) -> str | None:
    spec = pod["spec"]
    if "nodeName" in spec:
        return str(spec["nodeName"])
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return str(term["matchFields"][0]["values"][0])


def model_of(pod: Manifest) -> str:
    (reference,) = [v["image"]["reference"] for v in pod["spec"]["volumes"] if "image" in v]
    return named(reference)


def named(reference: str) -> str:
    """The model's name in an image's reference."""
    return reference.split("/")[-1].split("@")[0]


def holds(pod: Manifest, type: str) -> bool:
    return any(c["type"] == type and c["status"] == "True" for c in pod["status"]["conditions"])


def _fits(daemon_set: Manifest, labels: Mapping[str, str]) -> bool:
    affinity = daemon_set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return all(_matches(expression, labels) for expression in term["matchExpressions"])


def _matches(expression: Manifest, labels: Mapping[str, str]) -> bool:
    match expression["operator"]:
        case "In":
            assert expression["values"]
            return labels.get(expression["key"]) in expression["values"]
        case "NotIn":
            assert expression["values"]
            return labels.get(expression["key"]) not in expression["values"]
    raise AssertionError(expression)
