"""A run's configuration -> the ConfigMap and the Job that carry it out.

Names end in a hash over what the user asked for, so a changed wish is a new Job and never an edit of a running one. The
installation's own image and resource defaults are left out of the hash: an upgrade of the operator repeats no work.
Default values are left out too, so that a new field in the contract changes no name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmops import contract
from slmops.api.base import quantity, seconds
from slmops.api.resource import Resource
from slmops.api.run import Resources, ResumableRun, RunSpec
from slmops.cost import gpus
from slmops.plan.budget import left, mark
from slmops.plan.multinode import meeting_place, spread
from slmops.plan.network import peers, policy
from slmops.plan.queue import in_queue
from slmops.plan.sources import Sources
from slmops.plan.volume import claim, claim_name, lasting, mounted
from slmops.retraining import ANNOTATION_RETRAIN, asked
from slmops.settings import Settings
from slmops.state import (
    ANNOTATION_GPUS,
    ANNOTATION_NODE,
    ANNOTATION_RETRY,
    CONTAINER,
    EXIT_PERMANENT,
    EXIT_TERMINATED,
    Manifest,
    Observed,
    Step,
    child_labels,
    digest8,
)

USER = 65532
NOT_WISHED = {"run", "registry", "annotations", "image", "budget", "egress", "page"}
"""Fields of a run that change nothing of what it makes."""
ROLE = 11
"""Characters of a role in a Job's name: with a resource's name of 40, a hash and a rank the pods' host names are 63."""


@dataclass(frozen=True)
class Work:
    """One Job to be done: its place in the plan and its manifests."""

    step: Step
    config_map: Manifest
    job: Manifest
    policy: Manifest | None = None
    """Who its pods may connect to."""
    claim: Manifest | None = None
    """The volume that outlives its pods."""
    lasting: bool = False
    """Whether it outlives the Job's success, too."""
    service: Manifest | None = None
    """The names by which pods of several nodes find each other."""

    @property
    def before(self) -> tuple[Manifest, ...]:
        """What has to be there before the first pod is."""
        return (self.policy, self.config_map) if self.policy else (self.config_map,)

    def missing(self, observed: Observed) -> list[Manifest]:
        """What of it is not there yet, in order: for Jobs that are made once and then left alone."""
        wanted = (*self.before, self.job)
        return [item for item in wanted if observed.child(item["kind"], self.step.name) is None]


def work(
    resource: Resource[Any, Any],
    role: str,
    run: contract.Run | contract.PullRun | contract.BenchRun,
    *,
    image: str,
    run_spec: RunSpec,
    sources: Sources,
    settings: Settings,
    node: str | None = None,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    extra_volumes: tuple[tuple[Manifest, Manifest], ...] = (),
) -> Work:
    """The Job for a run whose name is still empty. ``node`` pins it to one node, by host name.

    ``name`` is for Jobs that are told apart by something else than their configuration.
    """
    volumes = [*sources.volumes, *(volume for volume, _ in extra_volumes)]
    mounts = [*sources.mounts, *(mount for _, mount in extra_volumes)]
    kept = run_spec.volume if isinstance(run_spec, ResumableRun) else None
    wish = [
        run.model_dump(mode="json", exclude_defaults=True, exclude=NOT_WISHED),
        run_spec.model_dump(mode="json", exclude_defaults=True, exclude={"deadline", "retries", "nodes"}),
        node,
        volumes,
    ]
    if sources.service_account is not None:
        wish.append({"serviceAccount": sources.service_account})
    again = asked(resource)
    if again is not None:  # the same wish, once more
        wish.append(again)
    name = name or f"{resource.metadata.name}-{role[:ROLE].rstrip('-')}-{digest8(wish)}"
    count = gpus(run_spec.resources.limits)
    allowed = peers(run, run_spec, settings)
    named = run.model_copy(
        update={"run": name}
        | (
            {
                "registry": contract.Registry(plain_http=settings.plain_http_registries),
                "egress": allowed,
                "annotations": {
                    "slmops.dev/kind": resource.kind(),
                    "slmops.dev/name": f"{resource.metadata.namespace}/{resource.metadata.name}",
                },
                "image": run_spec.image or image,
                "budget": left(resource, count, getattr(run, "nodes", 1)),
            }
            if isinstance(run, contract.Run)
            else {}
        )
    )
    labels = child_labels(resource, role) | dict(labels or {})
    meta: Manifest = {
        "name": name,
        "namespace": resource.metadata.namespace,
        "labels": labels,
        "ownerReferences": [resource.owner_reference()],
    }
    retry = resource.metadata.annotations.get(ANNOTATION_RETRY)
    annotations = ({ANNOTATION_RETRY: retry} if retry else {}) | ({ANNOTATION_NODE: node} if node else {})
    annotations |= {ANNOTATION_RETRAIN: again} if again is not None else {}
    annotations |= mark(resource) | ({ANNOTATION_GPUS: str(count)} if count else {})
    config_map: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        # A kubelet keeps an immutable one of the same name as long as an old pod ends: a raised budget would not be read.
        **({} if getattr(named, "budget", None) else {"immutable": True}),
        "data": {contract.CONFIG_KEY: named.model_dump_json(exclude_defaults=False)},
    }
    nodes = run.nodes if isinstance(run, contract.TrainRun) else 1
    volume_claim = None
    if kept is not None and isinstance(run, contract.Run):
        claimed = claim_name(name, run, wish[0] if again is None else [wish[0], again], kept)
        volume_claim = claim(meta | {"name": claimed}, kept, shared=nodes > 1)
        volume, mount = mounted(claimed)
        volumes.append(volume)
        mounts.append(mount)
    pod = pod_spec(
        image=run_spec.image or image,
        config_map=name,
        resources=resources(run_spec.resources, settings),
        volumes=volumes,
        mounts=mounts,
    )
    if kept is not None:
        pod["terminationGracePeriodSeconds"] = contract.GRACE_SECONDS_WITH_VOLUME
    selector = dict(run_spec.node_selector) | ({"kubernetes.io/hostname": node} if node else {})
    pod |= {
        "restartPolicy": "Never",
        **({"serviceAccountName": sources.service_account} if sources.service_account else {}),
        **({"nodeSelector": selector} if selector else {}),
        **({"tolerations": [t.dump() for t in run_spec.tolerations]} if run_spec.tolerations else {}),
        **({"priorityClassName": run_spec.priority_class_name} if run_spec.priority_class_name else {}),
        **({"runtimeClassName": run_spec.runtime_class_name} if run_spec.runtime_class_name else {}),
    }
    job: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta | ({"annotations": annotations} if annotations else {}),
        "spec": {
            "backoffLimit": run_spec.retries,
            "activeDeadlineSeconds": max(1, math.ceil(seconds(run_spec.deadline))),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [EXIT_PERMANENT]},
                    },
                    # Whoever told the pod to stop, a queue that preempts it or a person: it did not fail.
                    {
                        "action": "Ignore",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [EXIT_TERMINATED]},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    fence = None if allowed is None else policy(name, meta, labels, allowed, settings)
    if nodes > 1:
        spread(job, nodes)
    return Work(
        Step(role, name),
        config_map,
        in_queue(job, run_spec.queue),
        policy=fence,
        claim=volume_claim,
        lasting=isinstance(run, contract.Run) and lasting(run),
        service=meeting_place(job) if nodes > 1 else None,
    )


def pod_spec(
    *,
    image: str,
    config_map: str,
    resources: Mapping[str, Any],
    volumes: list[Manifest],
    mounts: list[Manifest],
    port: int = contract.PROGRESS_PORT,
) -> Manifest:
    """A pod that passes Pod Security *restricted*: one container, one argument, nothing writable but scratch."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": contract.GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "args": [contract.CONFIG_PATH],
                "ports": [{"name": "http", "containerPort": port}],
                "resources": dict(resources),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "config", "mountPath": contract.CONFIG_DIR, "readOnly": True},
                    {"name": "work", "mountPath": contract.WORK_DIR},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (a mount, not a file)
                    *mounts,
                ],
            }
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": config_map}},
            {"name": "work", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            *volumes,
        ],
    }


def resources(wanted: Resources, settings: Settings) -> dict[str, dict[str, str]]:
    """What the user asked for, filled with the installation's defaults where nothing was said."""
    defaults = settings.default_resources
    requests = {k: str(v) for k, v in wanted.requests.items()}
    # A request above the default limit is a wish for more than the default, not a mistake.
    limit = max(defaults.memory_limit, requests.get("memory", "0"), key=quantity)
    limits = {"memory": limit} | {k: str(v) for k, v in wanted.limits.items()}
    for name, value in (("cpu", defaults.cpu), ("memory", defaults.memory)):
        if name not in requests:
            requests[name] = limits[name] if name in wanted.limits else value
    return {"requests": requests, "limits": limits}
