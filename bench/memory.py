"""``python -m bench memory``: what our operator holds in memory for many finished FineTunes.

Each has what a real one leaves behind: the resource with its status, ConfigMap, Job and pod. They are made finished, with
the operator's own plan and status functions, so that the operator finds nothing to do, which is checked too. The Jobs are
marked as managed by somebody else, or the Job controller would run them. Measured from the process's start, over the
first pass of every object, to the end of a comparison of everything with fresh lists.
"""

import asyncio
import tempfile
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bench import lives
from bench.api import Api, Manifest, all_of
from bench.audit import by_resource, writes
from bench.figures import Figure, mb
from bench.place import (
    CLUSTER,
    ENVIRONMENT,
    drop_namespace,
    ensure_kinds,
    free_port,
    fresh_namespace,
    operator_aside,
    operator_command,
)
from bench.process import Process
from demo.steps import Kubectl
from slmops.api.finetune import FineTune
from slmops.contract import Artifact, Figures, Report
from slmops.kinds import KINDS
from slmops.plan.finetune import plan_finetune
from slmops.settings import Settings
from slmops.state import ANNOTATION_REPORT, CONTAINER, JOB_NAME_LABEL, Observed

NAMESPACE = "slmops-bench-memory"
LIMIT_BYTES = 120e6
RESYNC_SECONDS = 60
"""Ten times as often as by default, so that a comparison falls into the measurement."""
LIMIT = 1200.0
SOMEBODY = "slmops.dev/bench"


def run(objects: int) -> list[Figure]:
    """Make them, measure, and take them away."""
    kubectl = Kubectl(CLUSTER)
    ensure_kinds(kubectl)
    with operator_aside(kubectl):
        return asyncio.run(_run(kubectl, objects))


async def _run(kubectl: Kubectl, objects: int) -> list[Figure]:
    async with Api(CLUSTER.kubeconfig) as api:
        await fresh_namespace(kubectl, api, NAMESPACE)
        try:
            begun = time.monotonic()
            await all_of(finished(api, index) for index in range(objects))
            print(f"{objects} finished FineTunes made in {time.monotonic() - begun:.0f} s", flush=True)
            return await _measure(kubectl, objects)
        finally:
            await drop_namespace(kubectl, api, NAMESPACE, seconds=1800)


async def finished(api: Api, index: int) -> None:
    """One FineTune that has succeeded, with all that it leaves behind."""
    core, batch = f"/api/v1/namespaces/{NAMESPACE}", f"/apis/batch/v1/namespaces/{NAMESPACE}"
    made = await api.create(lives.path(NAMESPACE), lives.fine_tune(NAMESPACE, index))
    resource = FineTune.model_validate(made)
    wanted = plan_finetune(resource, Observed(), Settings())
    config_map, job = wanted.apply
    await api.create(f"{core}/configmaps", config_map)
    report = _report(index)
    job["metadata"] = job["metadata"] | {"annotations": {ANNOTATION_REPORT: report}}
    job["spec"] = job["spec"] | {"managedBy": SOMEBODY}
    job = await api.create(f"{batch}/jobs", job)
    job = await api.merge(f"{batch}/jobs/{job['metadata']['name']}/status", {"status": _job_status()})
    pod = await api.create(f"{core}/pods", _pod(job))
    pod = await api.merge(f"{core}/pods/{pod['metadata']['name']}/status", {"status": _pod_status(report)})
    observed = Observed(children=({**config_map, "kind": "ConfigMap"}, {**job, "kind": "Job"}), pods=(pod,))
    plan = plan_finetune(resource, observed, Settings())
    assert not plan.apply, "a finished FineTune has nothing to make"
    status = KINDS["FineTune"].status(resource, observed, plan, datetime.now(UTC)).dump()
    assert status["phase"] == "Succeeded", status
    await api.merge(lives.path(NAMESPACE, made["metadata"]["name"], "status"), {"status": status})


async def _measure(kubectl: Kubectl, objects: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        more = {"httpPort": port, "resyncSeconds": RESYNC_SECONDS, "logLevel": "warning"}
        command = operator_command(Path(folder), NAMESPACE, **more)
        since = time.time()
        with Process("operator", command, ENVIRONMENT, Path(folder, "log")) as process:
            begun = time.monotonic()
            await _until(process, port, lambda m: m.get('slmops_reconcile_total{kind="FineTune"', 0) >= objects)
            first_passes, (after_first, _) = time.monotonic() - begun, process.memory()
            compared = 'slmops_resync_total{kind="FineTune"'
            await _until(process, port, lambda m: m.get(compared, 0) >= 2)
            twice = 'slmops_reconcile_total{kind="FineTune"'
            await _until(process, port, lambda m: m.get(twice, 0) >= 2 * objects and not m["slmops_queue_depth"])
            steady, most = process.memory()
            cpu = process.cpu()
        found = writes(CLUSTER.audit_log, NAMESPACE, ("slmops",), since)
    print(f"operator: {objects} first passes in {first_passes:.0f} s, RSS then {mb(after_first)}; after a comparison "
          f"{mb(steady)}, at most {mb(most)}; {cpu:.0f} s CPU in all; writes: {by_resource(found) or 'none'}")  # fmt: skip
    return [
        Figure(f"operator RSS with {objects} FineTunes", f"at most {LIMIT_BYTES / 1e6:.0f} MB",
               f"at most {mb(most)}, {mb(steady)} in the end", most <= LIMIT_BYTES),
        Figure(f"writes over {objects} finished FineTunes at a start and a resync", "0", str(len(found)), not found),
    ]  # fmt: skip


async def _until(process: Process, port: int, done: Callable[[dict[str, float]], bool]) -> None:
    async def look() -> bool:
        return done(await asyncio.to_thread(_metrics, port))

    await process.until(look, LIMIT)


def _metrics(port: int) -> dict[str, float]:
    """The operator's metrics, added up over all labels but the first."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    found: dict[str, float] = {}
    for line in lines:
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            key = name.split(",")[0]
            found[key] = found.get(key, 0) + float(value)
    return found


def _report(index: int) -> str:
    def artifact(size: int, digest: str) -> Artifact:
        return Artifact(reference=f"registry.example/slm/farm-{index}@sha256:{digest * 64}", size=size)

    def figures(match: float) -> Figures:
        return Figures(exact_match=match, samples=400, inference_seconds=0.019, peak_memory_bytes=409_600_000,
                       weight_bytes=1_843_200, parameters=460_000)  # fmt: skip

    return Report(
        outcome="Succeeded", seconds=2.5, inputs={"train": f"oci://registry.example/slm/data@{lives.DATA}",
                                                  "base": f"oci://registry.example/slm/base@{lives.DATA}"},
        artifacts={"adapter": artifact(288_000, "2"), "model": artifact(1_843_200, "3")},
        evaluation={"baseline": figures(0.03), "model": figures(0.97)},
    ).model_dump_json(exclude_defaults=True)  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _job_status() -> Manifest:
    def condition(type: str) -> Manifest:
        return {"type": type, "status": "True", "reason": "CompletionsReached", "lastProbeTime": _now(),
                "lastTransitionTime": _now(), "message": "Reached expected number of succeeded pods"}  # fmt: skip

    return {
        "startTime": _now(), "completionTime": _now(), "succeeded": 1, "ready": 0, "terminating": 0,
        "uncountedTerminatedPods": {}, "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    }  # fmt: skip


def _pod(job: Manifest) -> Manifest:
    meta, template = job["metadata"], job["spec"]["template"]
    labels = template["metadata"]["labels"] | {
        JOB_NAME_LABEL: meta["name"],
        "batch.kubernetes.io/controller-uid": meta["uid"],
    }
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{meta['name']}-abcde", "labels": labels, "ownerReferences": [owner]},
        # Nobody shall schedule it: it has ended before it began.
        "spec": template["spec"] | {"schedulingGates": [{"name": SOMEBODY}]},
    }


def _pod_status(report: str) -> Manifest:
    ended = {"exitCode": 0, "reason": "Completed", "message": report, "startedAt": _now(), "finishedAt": _now(),
             "containerID": f"containerd://{'5' * 64}"}  # fmt: skip
    container = {"name": CONTAINER, "image": "slmops/trainer:0.1.0", "imageID": f"registry.example/trainer@{lives.DATA}",
                 "ready": False, "restartCount": 0, "started": False, "containerID": f"containerd://{'5' * 64}",
                 "state": {"terminated": ended}}  # fmt: skip
    conditions = [
        {"type": type, "status": status, "lastTransitionTime": _now(), "lastProbeTime": None}
        for type, status in (("PodReadyToStartContainers", "False"), ("Initialized", "True"), ("Ready", "False"),
                             ("ContainersReady", "False"), ("PodScheduled", "True"))
    ]  # fmt: skip
    return {
        "phase": "Succeeded", "conditions": conditions, "hostIP": "10.77.0.11", "hostIPs": [{"ip": "10.77.0.11"}],
        "podIP": "10.78.1.17", "podIPs": [{"ip": "10.78.1.17"}], "startTime": _now(), "qosClass": "Burstable",
        "containerStatuses": [container],
    }  # fmt: skip
