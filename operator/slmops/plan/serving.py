"""The server of one revision on the nodes of one pool: a ConfigMap and a DaemonSet.

The DaemonSet replaces no pod by itself (``OnDelete``): a revision never changes, and who runs which revision is said by
host name affinity alone, which the DaemonSet controller enforces even while the operator is away.
"""

import copy
from collections.abc import Collection
from typing import Any

from slmops import contract
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.plan.job import pod_spec
from slmops.rollout.children import set_name
from slmops.rollout.fit import server_resources
from slmops.rollout.fleet import HOSTNAME, ClassPool
from slmops.rollout.pods import SERVING
from slmops.rollout.revision import Revision
from slmops.settings import Settings
from slmops.state import ANNOTATION_RETRY, LABEL_POOL, LABEL_REVISION, LABEL_TRACK, Manifest, child_labels

ROLE = "serve"
NOWHERE = ("nowhere.invalid",)
"""Host names of no node, for a DaemonSet that is kept for later."""
LINGER_SECONDS = 3
"""A server that goes still answers for so long: the nodes learn a moment later that requests go elsewhere."""


def model_volume(image: str) -> tuple[Manifest, Manifest]:
    """A model image as a read-only volume, and its mount. The kubelet pulls it by digest like any image."""
    return (
        {"name": "model", "image": {"reference": image, "pullPolicy": "IfNotPresent"}},
        {"name": "model", "mountPath": contract.MODEL_DIR, "readOnly": True},
    )


def serve_run(resource: EdgeDeployment, pool: Pool, revision: Revision) -> contract.ServeRun:
    """What the server of a revision is told on the nodes of a pool."""
    runtime = resource.spec.runtime
    own = pool.generation.model_dump(exclude_none=True) if pool.generation is not None else {}
    length = own.pop("max_length", runtime.max_length)
    return contract.ServeRun(
        model_name=revision.model,
        model_path=contract.MODEL_DIR,
        revision=revision.name,
        engine=runtime.engine,
        port=runtime.port,
        max_queue=runtime.max_queue,
        max_length=length,
        adapter=pool.adapter,
        defaults=contract.ServeDefaults(**own) if own else None,
    )


def config_map(resource: EdgeDeployment, pool: Pool, revision: Revision) -> Manifest:
    """The server's configuration."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(resource, pool, revision.name),
        "immutable": True,
        "data": {contract.CONFIG_KEY: serve_run(resource, pool, revision).model_dump_json(exclude_none=True)},
    }


def daemon_set(
    resource: EdgeDeployment,
    pool: Pool,
    revision: Revision,
    settings: Settings,
    *,
    track: str,
    only: Collection[str] | None = None,
    excluded: Collection[str] = (),
    gated: bool = False,
) -> Manifest:
    """The DaemonSet of a revision: on the given host names, or on the whole pool but the excluded ones. ``gated``: its
    servers get traffic once the operator says so."""
    runtime = resource.spec.runtime
    meta = _meta(resource, pool, revision.name)
    meta["labels"] = meta["labels"] | {LABEL_TRACK: track}
    if revision.retry is not None:
        meta["annotations"] = {ANNOTATION_RETRY: revision.retry}
    volume, mount = model_volume(revision.images[pool.name])
    pod = pod_spec(
        image=runtime.image or settings.images.edge,
        config_map=meta["name"],
        resources=server_resources(resource, pool),
        volumes=[volume],
        mounts=[mount],
        port=runtime.port,
    )
    pod["containers"][0] |= {
        "livenessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 2},
        "lifecycle": {"preStop": {"sleep": {"seconds": LINGER_SECONDS}}},
    }
    pod["affinity"] = _where(pool, only, excluded)
    if pool.tolerations:
        pod["tolerations"] = [t.dump() for t in pool.tolerations]
    if gated:
        pod["readinessGates"] = [{"conditionType": SERVING}]
    labels = _labels(resource, pool.name, revision.name)
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": meta,
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def bound(live: Manifest, pool: Pool | None, track: str, *, only: Collection[str] | None = None,
          excluded: Collection[str] = ()) -> Manifest:  # fmt: skip
    """The DaemonSet of another revision as it is, on the given host names only, or on all but the excluded ones. Of a pool
    that is no more, ``only`` says all."""
    spec = copy.deepcopy(live["spec"])
    pod = spec["template"]["spec"]
    pod["affinity"] = _where(pool, only, excluded)
    if track == "stable":
        pod.pop("readinessGates", None)
    meta = {key: live["metadata"][key] for key in ("name", "namespace", "labels", "ownerReferences")}
    retry = (live["metadata"].get("annotations") or {}).get(ANNOTATION_RETRY)
    if retry is not None:
        meta["annotations"] = {ANNOTATION_RETRY: retry}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": meta | {"labels": meta["labels"] | {LABEL_TRACK: track}},
        "spec": {key: spec[key] for key in ("selector", "updateStrategy", "template")},
    }


def service(resource: EdgeDeployment, revision: str | None = None) -> Manifest:
    """One name for all servers, or for those of one revision; a client on an edge node is answered by that node's own
    server where it has one."""
    runtime = resource.spec.runtime
    port: dict[str, Any] = {"name": "http", "port": runtime.port, "targetPort": "http", "protocol": "TCP"}
    spec: dict[str, Any] = {
        "selector": child_labels(resource, ROLE) | ({LABEL_REVISION: revision} if revision else {}),
        "ports": [port],
        "type": "ClusterIP",
        "trafficDistribution": "PreferSameNode",
    }
    if runtime.node_port is not None:
        port["nodePort"] = runtime.node_port
        spec |= {"type": "NodePort", "externalTrafficPolicy": "Local"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": resource.metadata.name,
            "namespace": resource.metadata.namespace,
            "labels": child_labels(resource, ROLE),
            "ownerReferences": [resource.owner_reference()],
        },
        "spec": spec,
    }


def _labels(resource: EdgeDeployment, pool: str, revision: str) -> dict[str, str]:
    return child_labels(resource, ROLE) | {LABEL_POOL: pool, LABEL_REVISION: revision}


def _meta(resource: EdgeDeployment, pool: Pool, revision: str) -> Manifest:
    return {
        "name": set_name(resource, pool.name, revision),
        "namespace": resource.metadata.namespace,
        "labels": _labels(resource, pool.name, revision),
        "ownerReferences": [resource.owner_reference()],
    }


def _where(pool: Pool | None, only: Collection[str] | None, excluded: Collection[str]) -> Manifest:
    """Which nodes: by the pool's labels, and by host name where not all are meant."""
    labels = pool.selector.match_labels if pool is not None else {}
    expressions: list[Manifest] = [{"key": k, "operator": "In", "values": [v]} for k, v in sorted(labels.items())]
    if only is not None:
        expressions.append(_by_name("In", only))
    elif isinstance(pool, ClassPool):
        # Both, so that a node which is new to the class can be told from one that is kept from it.
        expressions += [_by_name("In", pool.hosts or NOWHERE), _by_name("NotIn", excluded or NOWHERE)]
    elif excluded:
        expressions.append(_by_name("NotIn", excluded))
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
        }
    }


def _by_name(operator: str, hosts: Collection[str]) -> Manifest:
    return {"key": HOSTNAME, "operator": operator, "values": sorted(hosts)}
