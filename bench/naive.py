"""The operator that most people would write: kopf's documented way, doing the writes that slmops does for a FineTune.

    kopf run --standalone --namespace NAMESPACE bench/naive.py

A create handler makes ConfigMap and Job and sets the phase through ``patch``; an update handler makes them anew; an event
handler on Jobs carries phases over to the parent with the Kubernetes client. It is kind to kopf: no events are posted, no
finalizer is needed, the manifests are literals, and what is known of a Job is kept in its memo, so that no phase is
written twice. What it does not do: survive a missed event, notice a deleted Job, check ownership, report progress.
"""

# mypy: ignore-errors
# It is written as the documentation of kopf and of the client writes it; their types say otherwise.

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import kopf
import kubernetes

LABELS = {"app.kubernetes.io/managed-by": "naive", "slmops.dev/kind": "FineTune"}
API = {"group": "slmops.dev", "version": "v1alpha1", "plural": "finetunes"}
IMAGE = "slmops/trainer:0.1.0"


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Log in once, and leave the status to the handlers: its schema has no place for kopf's own progress."""
    kubernetes.config.load_kube_config()
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage()


@kopf.on.create("slmops.dev", "v1alpha1", "finetunes")
@kopf.on.update("slmops.dev", "v1alpha1", "finetunes", field="spec")
def make(name: str, namespace: str, spec: kopf.Spec, meta: kopf.Meta, patch: kopf.Patch, **_: Any) -> None:
    """Make what the spec asks for. Names are made of its hash, so a repeated call meets what it made before."""
    job = f"{name}-train-{hashlib.sha256(json.dumps(dict(spec), sort_keys=True).encode()).hexdigest()[:8]}"
    labels = LABELS | {"slmops.dev/name": name}
    children = [_config_map(job, dict(spec)), _job(job, dict(spec), labels)]
    kopf.adopt(children)
    kopf.label(children, labels)
    core, batch = kubernetes.client.CoreV1Api(), kubernetes.client.BatchV1Api()
    for create, child in zip((core.create_namespaced_config_map, batch.create_namespaced_job), children, strict=True):
        try:
            create(namespace, child)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise
    patch.status["phase"] = "Pending"
    patch.status["observedGeneration"] = meta["generation"]
    patch.status["conditions"] = [_condition("Succeeded", "Unknown", "Starting", meta)]


@kopf.on.event("batch", "v1", "jobs", labels=LABELS)
def follow(event: kopf.RawEvent, body: kopf.Body, name: str, namespace: str, memo: kopf.Memo, **_: Any) -> None:
    """Carry a Job's phase over to its FineTune."""
    status = body.get("status") or {}
    conditions = {c["type"] for c in status.get("conditions") or [] if c["status"] == "True"}
    if event["type"] == "DELETED":
        return
    if "Complete" in conditions:
        phase = "Succeeded"
    elif "Failed" in conditions:
        phase = "Failed"
    elif status.get("active"):
        phase = "Training"
    else:
        return
    if memo.get("phase") == phase:
        return
    made: dict[str, Any] = {"phase": phase}
    if phase == "Succeeded":
        report = _report(namespace, name)
        batch = kubernetes.client.BatchV1Api()
        batch.patch_namespaced_job(
            name, namespace, {"metadata": {"annotations": {"slmops.dev/report": json.dumps(report)}}}
        )
        made |= {
            "adapter": _artifact(report["artifacts"]["adapter"]),
            "artifact": _artifact(report["artifacts"]["model"]),
            "inputs": report["inputs"],
            "evaluation": {
                who: {"ExactMatch": found["exact_match"], "Samples": found["samples"]}
                for who, found in report["evaluation"].items()
            },
            "conditions": [_condition("Succeeded", "True", "Completed", body.metadata)],
        }
    kubernetes.client.CustomObjectsApi().patch_namespaced_custom_object_status(
        **API, namespace=namespace, name=body.metadata.labels["slmops.dev/name"], body={"status": made}
    )
    memo["phase"] = phase


def _report(namespace: str, job: str) -> dict[str, Any]:
    pods = kubernetes.client.CoreV1Api().list_namespaced_pod(
        namespace, label_selector=f"batch.kubernetes.io/job-name={job}"
    )
    return dict(json.loads(pods.items[-1].status.container_statuses[0].state.terminated.message))


def _artifact(made: dict[str, Any]) -> dict[str, str]:
    return {"reference": made["reference"], "size": f"{made['size'] / 2**20:.4g}Mi"}


def _condition(type: str, status: str, reason: str, meta: Any) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": type, "status": status, "reason": reason, "message": "",
            "observedGeneration": meta["generation"], "lastTransitionTime": now}  # fmt: skip


def _config_map(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "immutable": True,
        "data": {"run.json": json.dumps({"type": "Train", "run": name, **spec})},
    }


def _job(name: str, spec: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    run = spec["run"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 2,
            "activeDeadlineSeconds": 86400,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": {"containerName": "run", "operator": "In", "values": [3]}},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "nodeSelector": run["nodeSelector"],
                    "tolerations": run["tolerations"],
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "run",
                            "image": IMAGE,
                            "args": ["/etc/slmops/run.json"],
                            "ports": [{"name": "http", "containerPort": 9090}],
                            "resources": {
                                "requests": {"cpu": "500m", "memory": "1Gi"},
                                "limits": {"memory": "4Gi"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": [
                                {"name": "config", "mountPath": "/etc/slmops", "readOnly": True},
                                {"name": "work", "mountPath": "/work"},
                                {"name": "tmp", "mountPath": "/tmp"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "config", "configMap": {"name": name}},
                        {"name": "work", "emptyDir": {}},
                        {"name": "tmp", "emptyDir": {}},
                    ],
                },
            },
        },
    }
