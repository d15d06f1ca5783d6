"""A cluster with edge nodes, in memory: API server, DaemonSet and Job controllers, kubelets. Nothing moves by itself.

Each method is one small step of one actor, so that a test chooses the order. How a model image behaves is said by the
first word of its name, see ``_tokens``.
"""

import copy
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from tests.unit.fleet_builders import GATES, NOW, SETTINGS, image, manifest, node, pinned
from tests.unit.serverside import applied

from slmops import contract
from slmops.api.conditions import timestamp
from slmops.api.edgedeployment import EdgeDeployment, EdgeDeploymentStatus
from slmops.cluster.objects import NODE, POD, differs, prune, status_differs
from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.rollout.rollout import Rollout
from slmops.state import LABEL_REVISION, Manifest, Observed, Plan
from slmops.status.edgedeployment import edgedeployment_status

Key = tuple[str, str]
BENCHMARK = {"data": {"uri": "oci://registry.example/slm/data:v1"}}


class World:
    """The cluster and the operator's passes over one EdgeDeployment."""

    def __init__(self, nodes: Mapping[str, str], model: str = "good-1", **spec: Any) -> None:
        """``nodes`` are hardware classes by name."""
        self.now: datetime = NOW
        self.objects: dict[Key, Manifest] = {}
        self.pods: dict[str, Manifest] = {}
        self.nodes: dict[str, Manifest] = {}
        self.version = 0
        """Grows with every change of anything."""
        self.plan = Plan()
        self._applied: dict[Key, Manifest] = {}
        self._numbers = itertools.count(1)
        self.parent = manifest(model, **{"benchmark": BENCHMARK, "gates": GATES} | spec)
        for name, hardware in nodes.items():
            self.join(name, hardware)

    # --- people and machines

    def deploy(self, model: str) -> None:
        """The user wants another model."""
        self.change(model={"image": image(model)})

    def change(self, **spec: Any) -> None:
        """The user changes the spec."""
        if self.parent["spec"] != self.parent["spec"] | spec:
            self.parent["spec"] |= spec
            self.parent["metadata"]["generation"] += 1
            self.version += 1

    def retry(self, word: str) -> None:
        """The user sets the annotation that asks for another try."""
        self.parent["metadata"]["annotations"]["slmops.dev/retry"] = word
        self.version += 1

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.now += timedelta(seconds=seconds)

    def join(self, name: str, hardware: str, pool: str | None = "farms") -> None:
        """A new node; its host name label is not its name."""
        self.nodes[name] = node(name, hardware=hardware, pool=pool, hostname=f"{name}.local")
        self.version += 1

    def leave(self, name: str) -> None:
        """The node is gone for good."""
        del self.nodes[name]
        self.pods = {key: pod for key, pod in self.pods.items() if _on(pod) != name}
        self.version += 1

    def relabel(self, name: str, pool: str | None) -> None:
        """The node goes to another pool, or to none."""
        labels = self.nodes[name]["metadata"]["labels"]
        labels.pop("pool", None)
        labels |= {"pool": pool} if pool else {}
        self.version += 1

    def offline(self, name: str) -> None:
        """The kubelet is silent; the node controller takes its pods for not ready."""
        self._node_ready(name, "Unknown")
        for pod in self.pods_on(name):
            self._condition(pod, "Ready", False)

    def online(self, name: str) -> None:
        """The kubelet is back."""
        self._node_ready(name, "True")

    def crash(self, pod: Manifest) -> None:
        """A server's container ends and is started again."""
        status = pod["status"]
        status["containerStatuses"][0]["restartCount"] += 1
        self._condition(pod, "ContainersReady", False)
        self._condition(pod, "Ready", False)

    def evict(self, pod: Manifest) -> None:
        """Somebody deletes a pod."""
        self._delete_pod(pod)

    # --- the operator

    def observed(self) -> Observed:
        """What the operator's cache holds."""
        return Observed(
            children=tuple(self.objects.values()),
            pods=tuple(prune(POD, pod) for pod in self.pods.values()),
            nodes=tuple(prune(NODE, found) for found in self.nodes.values()),
        )

    def operate(self, stop_after: int | None = None) -> int:
        """One pass, in the order of the reconciler; it may be killed after some writes. Returns the writes."""
        resource = EdgeDeployment.model_validate(self.parent)
        observed = self.observed()
        self.plan = plan = plan_edgedeployment(resource, observed, SETTINGS, self.now)
        writes = 0
        for write in self._writes(plan):
            if writes == stop_after:
                return writes
            write()
            writes += 1
            self.version += 1
        if writes == stop_after:
            return writes
        status = edgedeployment_status(resource, observed, plan, self.now).dump()
        EdgeDeploymentStatus.model_validate(status)
        wanted = {**self.parent, "status": json.loads(json.dumps(status))}
        if status_differs(wanted, self.parent):
            self.parent = wanted
            self.version += 1
            writes += 1
        return writes

    def _writes(self, plan: Plan) -> Iterator[Any]:
        for pod, condition in plan.pod_conditions:
            yield lambda n=pod["metadata"]["name"], c=condition: self._condition(self.pods[n], c["type"], True)
        for wanted in plan.apply:
            live = self.objects.get(_key(wanted))
            if live is None or not (wanted.get("immutable") or not differs(wanted, live)):
                yield lambda w=wanted: self._apply(w)
        for child, annotations in plan.annotate:
            yield lambda c=child, a=annotations: c["metadata"].setdefault("annotations", {}).update(a)
        for child in plan.remove:
            yield lambda c=child: self.objects.pop(_key(c))

    def _apply(self, wanted: Manifest) -> None:
        key = _key(wanted)
        live = self.objects.get(key)
        name = f"uid-{next(self._numbers)}"
        found: Manifest = {"metadata": {"uid": name, "creationTimestamp": timestamp(self.now)}} if live is None else live
        new = applied(found, wanted, self._applied.get(key, {}) if live else {})
        if wanted["kind"] == "DaemonSet":
            new["spec"].setdefault("revisionHistoryLimit", 10)
            for field, default in {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}.items():
                new["spec"]["template"]["spec"].setdefault(field, default)
            assert live is None or live["spec"]["selector"] == new["spec"]["selector"], "the selector is immutable"
        assert live is None or wanted["kind"] != "Job", "a Job is never changed"
        self.objects[key] = new
        self._applied[key] = copy.deepcopy(wanted)

    # --- controllers

    def of_kind(self, kind: str) -> list[Manifest]:
        """Children of a kind, by name."""
        return [self.objects[key] for key in sorted(self.objects) if key[0] == kind]

    def daemon_set(self, found: Manifest) -> None:
        """One look of the DaemonSet controller: a pod on each node that fits, none elsewhere."""
        uid = found["metadata"]["uid"]
        mine = [pod for pod in self.pods.values() if _owner(pod) == uid and "deletionTimestamp" not in pod["metadata"]]
        for name, machine in self.nodes.items():
            here = [pod for pod in mine if _on(pod) == name]
            if _fits(found, machine["metadata"]["labels"]) and not here:
                self._create_pod(found, {"affinity": pinned(name)})
            elif not _fits(found, machine["metadata"]["labels"]):
                for pod in here:
                    self._delete_pod(pod)

    def collect(self) -> None:
        """The garbage collector: pods without an owner."""
        owners = {child["metadata"]["uid"] for child in self.objects.values()}
        for pod in list(self.pods.values()):
            if _owner(pod) not in owners and "deletionTimestamp" not in pod["metadata"]:
                self._delete_pod(pod)

    def jobs(self) -> None:
        """The Job controller."""
        for job in self.of_kind("Job"):
            pods = [pod for pod in self.pods.values() if _owner(pod) == job["metadata"]["uid"]]
            if job.get("status", {}).get("conditions"):
                continue
            if not pods:
                host = job["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/hostname"]
                if name := self._by_host(host):
                    self._create_pod(job, {"nodeName": name})
                continue
            ended = pods[0]["status"]["containerStatuses"][0]["state"].get("terminated")
            if ended:
                done = "Complete" if ended["exitCode"] == 0 else "Failed"
                stamp = timestamp(self.now)
                job["status"] = {"conditions": [{"type": done, "status": "True", "lastTransitionTime": stamp}]}
                job["status"] |= {"completionTime": stamp} if ended["exitCode"] == 0 else {}
                self.version += 1

    def kubelet(self, name: str) -> None:
        """One look of a node's kubelet at its pods; a silent one does nothing."""
        if not self.is_online(name):
            return
        for pod in self.pods_on(name):
            if "deletionTimestamp" in pod["metadata"]:
                del self.pods[pod["metadata"]["name"]]
                self.version += 1
            elif "nodeName" not in pod["spec"]:
                pod["spec"]["nodeName"] = name
                self.version += 1
            elif pod["metadata"]["labels"]["slmops.dev/role"] == "serve":
                self._serve(pod)
            else:
                self._run(pod)

    def _serve(self, pod: Manifest) -> None:
        status = pod["status"]
        (container,) = status["containerStatuses"]
        if status["phase"] == "Pending":
            status |= {"phase": "Running", "podIP": f"10.0.0.{next(self._numbers)}"}
            container["state"] = {"running": {}}
            self.version += 1
        elif _model(pod).startswith("crashing"):
            container["restartCount"] += container["restartCount"] < 5
            self.version += container["restartCount"] < 5
            return
        else:
            self._condition(pod, "ContainersReady", True)
        gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
        self._condition(pod, "Ready", all(_holds(pod, type) for type in ["ContainersReady", *gates]))

    def _run(self, pod: Manifest) -> None:
        (container,) = pod["status"]["containerStatuses"]
        if "terminated" in container["state"]:
            return
        self.version += 1
        if pod["status"]["phase"] == "Pending":
            pod["status"]["phase"] = "Running"
            container["state"] = {"running": {}}
            return
        report = self._bench(pod) if pod["metadata"]["labels"]["slmops.dev/role"] == "bench" else self._pull(pod)
        good = report.outcome == "Succeeded"
        pod["status"]["phase"] = "Succeeded" if good else "Failed"
        container["state"] = {"terminated": {"exitCode": 0 if good else 3, "message": report.model_dump_json()}}

    def _pull(self, pod: Manifest) -> contract.Report:
        if _model(pod).startswith("broken"):
            return contract.Report(outcome="Failed", reason=contract.Reason.UNSUPPORTED_MODEL, message="no *.onnx")
        return contract.Report(outcome="Succeeded")

    def _bench(self, pod: Manifest) -> contract.Report:
        (name,) = [v["configMap"]["name"] for v in pod["spec"]["volumes"] if v["name"] == "config"]
        run = contract.BenchRun.model_validate_json(self.objects["ConfigMap", name]["data"][contract.CONFIG_KEY])
        targets = {}
        for target in run.targets:
            server = self._server(target.url)
            if server is None or not _holds(server, "ContainersReady"):
                return contract.Report(outcome="Failed", reason=contract.Reason.TARGET_UNREACHABLE, message=target.url)
            hardware = self.nodes[str(_on(pod))]["metadata"]["labels"]["slmops.dev/hardware-class"]
            speeds = _tokens(_model(server), hardware)
            rounds = tuple(
                contract.Round(time_to_first_token_seconds=0.1, tokens_per_second=speed, request_seconds=1)
                for speed in speeds
            )
            requests = 20 * len(speeds)
            targets[target.name] = contract.TargetFigures(rounds=rounds, requests=requests, errors=0)
        return contract.Report(outcome="Succeeded", targets=targets)

    def _server(self, url: str) -> Manifest | None:
        for pod in self.pods.values():
            owner = next((c for c in self.objects.values() if c["metadata"]["uid"] == _owner(pod)), None)
            if owner is None or owner["kind"] != "DaemonSet":
                continue
            run = json.loads(self.objects["ConfigMap", owner["metadata"]["name"]]["data"][contract.CONFIG_KEY])
            if url == f"http://{pod['status'].get('podIP')}:{run['port']}":
                return pod
        return None

    # --- all of it

    def settle(self, limit: int = 400) -> None:
        """Everybody works until nothing changes any more."""
        for _ in range(limit):
            before = self.version
            self.turn()
            if self.version == before and not self._soaks():
                return
        raise AssertionError(f"never at rest: {self.parent['status']}")

    def turn(self) -> None:
        """Everybody does a step, who is fast does more."""
        self.operate()
        for found in self.of_kind("DaemonSet"):
            self.daemon_set(found)
        self.collect()
        for _ in range(3):
            self.jobs()
            for name in list(self.nodes):
                self.kubelet(name)
        self.advance(1)

    def _soaks(self) -> bool:
        rollout = self.plan.detail
        left = rollout.soak_left if isinstance(rollout, Rollout) else None
        self.advance(left or 0)
        return bool(left)

    # --- looking

    def is_online(self, name: str) -> bool:
        """Whether the kubelet reports."""
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self.nodes[name]["status"]["conditions"])

    def members(self, pool: str = "farms", online: bool = True) -> list[str]:
        """The pool's nodes."""
        return [
            name
            for name, found in self.nodes.items()
            if found["metadata"]["labels"].get("pool") == pool and (self.is_online(name) or not online)
        ]

    def pods_on(self, name: str, role: str | None = None) -> list[Manifest]:
        """The pods of a node."""
        pods = [pod for pod in self.pods.values() if _on(pod) == name]
        return [pod for pod in pods if role in (None, pod["metadata"]["labels"]["slmops.dev/role"])]

    def serving(self, name: str) -> list[str]:
        """Models of the ready servers on a node."""
        return sorted(_model(pod) for pod in self.pods_on(name, "serve") if _holds(pod, "Ready"))

    def revisions(self, name: str) -> set[str]:
        """Revisions of all servers on a node, ready or not."""
        return {pod["metadata"]["labels"][LABEL_REVISION] for pod in self.pods_on(name, "serve")}

    @property
    def status(self) -> Manifest:
        """The EdgeDeployment's status."""
        return dict(self.parent["status"])

    def condition(self, type: str) -> Manifest:
        """One of its conditions."""
        return next(dict(c) for c in self.status["conditions"] if c["type"] == type)

    # --- inside

    def _by_host(self, host: str) -> str | None:
        named = (n for n, m in self.nodes.items() if m["metadata"]["labels"].get("kubernetes.io/hostname") == host)
        return next(named, None)

    def _node_ready(self, name: str, status: str) -> None:
        condition = next(c for c in self.nodes[name]["status"]["conditions"] if c["type"] == "Ready")
        if condition["status"] != status:
            condition |= {"status": status, "lastTransitionTime": timestamp(self.now)}
            self.version += 1

    def _condition(self, pod: Manifest, type: str, holds: bool) -> None:
        conditions = pod["status"]["conditions"]
        if _holds(pod, type) != holds or not any(c["type"] == type for c in conditions):
            conditions[:] = [c for c in conditions if c["type"] != type]
            conditions.append({"type": type, "status": str(holds), "lastTransitionTime": timestamp(self.now)})
            self.version += 1

    def _create_pod(self, owner: Manifest, spec: Manifest) -> None:
        template = owner["spec"]["template"]
        name = f"{owner['metadata']['name']}-{next(self._numbers)}"
        labels = dict(template["metadata"]["labels"])
        self.pods[name] = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "edge-ai", "uid": f"uid-{name}", "labels": labels,
                         "creationTimestamp": timestamp(self.now), "ownerReferences": [
                             {"kind": owner["kind"], "uid": owner["metadata"]["uid"], "controller": True}]},
            "spec": copy.deepcopy(template["spec"]) | spec,
            "status": {"phase": "Pending", "conditions": [], "containerStatuses": [
                {"name": "run", "restartCount": 0, "state": {"waiting": {}}}]},
        }  # fmt: skip
        self.version += 1

    def _delete_pod(self, pod: Manifest) -> None:
        """At once where the kubelet can confirm it; else the pod stays until the node is back."""
        self.version += 1
        if (name := _on(pod)) in self.nodes and not self.is_online(str(name)):
            pod["metadata"]["deletionTimestamp"] = timestamp(self.now)
        else:
            del self.pods[pod["metadata"]["name"]]


def _tokens(model: str, hardware: str) -> Sequence[float]:
    """Tokens a second in three rounds."""
    match model.split("-")[0]:
        case "slow":
            return (10, 10, 10)
        case "lame":
            return (10, 10, 10) if hardware == "big" else (30, 30, 30)
        case "noisy":
            return (5, 30, 60)
        case "silent":
            return ()
    return (30, 30, 30)


def _key(found: Manifest) -> Key:
    return found["kind"], found["metadata"]["name"]


def _owner(pod: Manifest) -> str:
    return str(pod["metadata"]["ownerReferences"][0]["uid"])


def _on(pod: Manifest) -> str | None:
    spec = pod["spec"]
    if "nodeName" in spec:
        return str(spec["nodeName"])
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return str(term["matchFields"][0]["values"][0])


def _model(pod: Manifest) -> str:
    (reference,) = [v["image"]["reference"] for v in pod["spec"]["volumes"] if "image" in v]
    return str(reference.split("/")[-1].split("@")[0])


def _holds(pod: Manifest, type: str) -> bool:
    return any(c["type"] == type and c["status"] == "True" for c in pod["status"]["conditions"])


def _fits(daemon_set: Manifest, labels: Mapping[str, str]) -> bool:
    affinity = daemon_set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return all(_matches(expression, labels) for expression in term["matchExpressions"])


def _matches(expression: Manifest, labels: Mapping[str, str]) -> bool:
    match expression["operator"]:
        case "Exists":
            assert "values" not in expression
            return expression["key"] in labels
        case "In":
            assert expression["values"]
            return labels.get(expression["key"]) in expression["values"]
        case "NotIn":
            assert expression["values"]
            return labels.get(expression["key"]) not in expression["values"]
    raise AssertionError(expression)
