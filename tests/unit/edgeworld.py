"""A cluster with edge nodes and the operator's passes over one EdgeDeployment. Nothing moves by itself."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from slmops.api.conditions import timestamp
from slmops.api.edgedeployment import EdgeDeployment, EdgeDeploymentStatus
from slmops.cluster.objects import NODE, POD, differs, gvk_of, prune, status_differs
from slmops.plan.edgedeployment import plan_edgedeployment
from slmops.rollout.rollout import Rollout
from slmops.state import LABEL_REVISION, LABEL_ROLE, Manifest, Observed, Plan, owners
from slmops.status.edgedeployment import edgedeployment_status
from tests.unit.copies import fresh
from tests.unit.edgemachines import Key, Machines, holds, model_of, on
from tests.unit.fleet_builders import GATES, SETTINGS, image, manifest, node
from tests.unit.serverside import applied

BENCHMARK = {"data": {"uri": "oci://registry.example/slm/data:v1"}}


class World(Machines):
    """The cluster and the operator's passes over one EdgeDeployment."""

    def __init__(self, nodes: Mapping[str, str], model: str = "good-1", **spec: Any) -> None:
        """``nodes`` are hardware classes by name."""
        super().__init__()
        self.plan = Plan()
        self.written = 0
        """Writes of the operator."""
        self.references: dict[tuple[str, str], Manifest] = {}
        """Other resources of the namespace."""
        self.kill_after: int | None = None
        """The operator is killed once more, after so many writes from now on."""
        self._applied: dict[Key, Manifest] = {}
        self.parent = manifest(model, **{"benchmark": BENCHMARK, "gates": GATES} | spec)
        for name, hardware in nodes.items():
            self.join(name, hardware)

    # --- people and machines

    def deploy(self, model: str) -> None:
        """The user wants another model."""
        self.change(model={"image": image(model)})

    def quantize(self, *models: str) -> None:
        """The QuantizedModel ``q`` has these variants now, which have their models' names."""
        variants = [{"name": m, "phase": "Ready", "reference": image(m), "size": "1Mi"} for m in models]
        number = self.version
        self.references["QuantizedModel", "q"] = {
            "metadata": {"name": "q", "generation": number}, "spec": {"variants": [{"name": m} for m in models]},
            "status": {"observedGeneration": number, "variants": variants},
        }  # fmt: skip
        self.version += 1

    def change(self, **spec: Any) -> None:
        """The user changes the spec."""
        if self.parent["spec"] != self.parent["spec"] | spec:
            self.parent["spec"] |= spec
            self.parent["metadata"]["generation"] += 1
            self.version += 1

    def retry(self, word: str | None) -> None:
        """The user sets the annotation that asks for another try, or takes it away."""
        annotations = self.parent["metadata"]["annotations"]
        annotations.pop("slmops.dev/retry", None)
        annotations |= {} if word is None else {"slmops.dev/retry": word}
        self.version += 1

    def say(self, **annotations: str) -> None:
        """The user sets annotations slmops.dev/…; a name's underscores are hyphens."""
        said = {f"slmops.dev/{name.replace('_', '-')}": text for name, text in annotations.items()}
        self.parent["metadata"]["annotations"] |= said
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
        self.pods = {key: pod for key, pod in self.pods.items() if on(pod) != name}
        self.version += 1

    def relabel(self, name: str, pool: str | None) -> None:
        """The node goes to another pool, or to none."""
        labels = self.nodes[name]["metadata"]["labels"]
        labels.pop("pool", None)
        labels |= {"pool": pool} if pool else {}
        self.version += 1

    def offline(self, name: str) -> None:
        """The kubelet is silent; the node controller takes its pods for not ready."""
        self.set_node_ready(name, "Unknown")
        for pod in self.pods_on(name):
            self.set_condition(pod, "Ready", False)

    def online(self, name: str) -> None:
        """The kubelet is back."""
        self.set_node_ready(name, "True")

    def crash(self, pod: Manifest) -> None:
        """A server's container ends and is started again."""
        status = pod["status"]
        status["containerStatuses"][0]["restartCount"] += 1
        self.set_condition(pod, "ContainersReady", False)
        self.set_condition(pod, "Ready", False)

    def evict(self, pod: Manifest) -> None:
        """Somebody deletes a pod."""
        self.delete_pod(pod)

    # --- the operator

    def observed(self) -> Observed:
        """What the operator's cache holds; a pod whose owner is gone is not among it."""
        uids = {child["metadata"]["uid"] for child in self.objects.values()}
        return Observed(
            children=tuple(prune(gvk_of(child), child) for child in self.objects.values()),
            pods=tuple(prune(POD, pod) for pod in self.pods.values() if uids & owners(pod)),
            nodes=tuple(prune(NODE, found) for found in self.nodes.values()),
            references=self.references,
        )

    def operate(self) -> int:
        """One pass, in the order of the reconciler. Returns the writes; killed, it does not come to its end."""
        resource = EdgeDeployment.model_validate(self.parent)
        observed = self.observed()
        self.plan = plan = plan_edgedeployment(resource, observed, SETTINGS, self.now)
        before = self.written
        for write in self._writes(plan):
            if self._killed():
                return self.written - before
            write()
            self._count()
        if self._killed():
            return self.written - before
        applied = {_key(child) for child in plan.apply}
        made = [self.objects[key] for key in applied]
        rest = [child for child in observed.children if _key(child) not in applied]
        observed = replace(observed, children=(*rest, *made))
        status = edgedeployment_status(resource, observed, plan, self.now).dump()
        wanted = {**self.parent, "status": json.loads(json.dumps(status))}
        if status_differs(wanted, self.parent):
            EdgeDeploymentStatus.model_validate(status)
            self.parent = wanted
            self._count()
        return self.written - before

    def _count(self) -> None:
        self.written += 1
        self.version += 1
        self.kill_after = None if self.kill_after is None else self.kill_after - 1

    def _killed(self) -> bool:
        if self.kill_after != 0:
            return False
        self.kill_after = None
        self.version += 1  # somebody else begins anew
        return True

    def _writes(self, plan: Plan) -> Iterator[Any]:
        for pod, condition in plan.pod_conditions:
            yield lambda n=pod["metadata"]["name"], c=condition: self.set_condition(self.pods[n], c["type"], True)
        for wanted in plan.apply:
            live = self.objects.get(_key(wanted))
            if live is None or not (wanted.get("immutable") or not differs(wanted, live)):
                yield lambda w=wanted: self._apply(w)
        for child, annotations in plan.annotate:
            yield lambda c=child, a=annotations: self._annotate(c, a)
        for child in plan.remove:
            yield lambda c=child: self._remove(c)

    def _remove(self, child: Manifest) -> None:
        if child["kind"] == "Pod":
            self.delete_pod(self.pods[child["metadata"]["name"]])
        else:
            self.objects.pop(_key(child))

    def _annotate(self, child: Manifest, annotations: Mapping[str, str]) -> None:
        self.objects[_key(child)]["metadata"].setdefault("annotations", {}).update(annotations)

    def _apply(self, wanted: Manifest) -> None:
        key = _key(wanted)
        live = self.objects.get(key)
        name = f"uid-{self.number()}"
        found: Manifest = (
            {"metadata": {"uid": name, "creationTimestamp": timestamp(self.now)}} if live is None else live
        )
        new = applied(found, wanted, self._applied.get(key, {}) if live else {})
        if wanted["kind"] == "DaemonSet":
            new["spec"].setdefault("revisionHistoryLimit", 10)
            for field, default in {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}.items():
                new["spec"]["template"]["spec"].setdefault(field, default)
            assert live is None or live["spec"]["selector"] == new["spec"]["selector"], "the selector is immutable"
        assert live is None or wanted["kind"] != "Job", "a Job is never changed"
        self.objects[key] = new
        self._applied[key] = fresh(wanted)

    # --- all of it

    def settle(self, limit: int = 400) -> None:
        """Everybody works until nothing changes any more."""
        for _ in self.to_rest(limit):
            pass

    def to_rest(self, limit: int = 400) -> Iterator[None]:
        """The same, with a look at what is so after each turn."""
        for _ in range(limit):
            before = self.version
            self.turn()
            yield
            if self.version == before and not self._soaks():
                return
        raise AssertionError(f"never at rest: {self.parent['status']}")

    def elapse(self, seconds: int) -> None:
        """Everybody works for so long: each second while anything changes, else when the operator wanted to look again."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            before = self.version
            self.turn()
            if self.version == before:
                left = (end - self.now).total_seconds() - 1  # the last second is looked at, whatever is due
                self.advance(max(0.0, left if self.plan.deadline is None else min(left, self.plan.deadline - 1)))

    def turn(self) -> None:
        """Everybody does a step, who is fast does more."""
        self.operate()
        for found in self.of_kind("DaemonSet"):
            self.daemon_set(found)
        self.collect()
        for _ in range(3):
            self.jobs()
            self.kubelets()
        self.advance(1)

    def _soaks(self) -> bool:
        rollout = self.plan.detail
        left = rollout.left if isinstance(rollout, Rollout) else None
        self.advance(left or 0)
        return bool(left)

    # --- looking

    def members(self, pool: str = "farms", online: bool = True) -> list[str]:
        """The pool's nodes."""
        return [
            name
            for name, found in self.nodes.items()
            if found["metadata"]["labels"].get("pool") == pool and (self.is_online(name) or not online)
        ]

    def unfinished(self, role: str) -> list[Manifest]:
        """Jobs of a role that have not come to an end."""
        jobs = (job for job in self.of_kind("Job") if job["metadata"]["labels"][LABEL_ROLE] == role)
        return [job for job in jobs if not (job.get("status") or {}).get("conditions")]

    def serving(self, name: str) -> list[str]:
        """Models of the ready servers on a node."""
        return sorted(model_of(pod) for pod in self.pods_on(name, "serve") if holds(pod, "Ready"))

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


def _key(found: Manifest) -> Key:
    return found["kind"], found["metadata"]["name"]
