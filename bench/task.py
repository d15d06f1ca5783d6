"""``python -m bench task``: what distillation gives on the demo's task, the student against its teacher.

Our operator carries out ``distillation.yaml`` on the cluster: the teacher's weights label the prompts, the student learns
from nothing, and the same run then measures both on the same held-out records, each model in a process of its own on the
same node, greedy, in FP32. Nothing is compared with a figure from elsewhere.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.api import Api
from bench.figures import Figure, mb
from bench.place import (
    CLUSTER,
    ENVIRONMENT,
    drop_namespace,
    ensure_kinds,
    fresh_namespace,
    operator_aside,
    operator_command,
)
from bench.process import Process
from demo.steps import ROOT, Kubectl, Manifest, build_images, condition, ensure_teacher

NAMESPACE = "slmops-bench-task"
MANIFEST = ROOT / "bench" / "distillation.yaml"
LIMIT = 3600.0
Outcome = tuple[dict[str, dict[str, float]], str]
"""The evaluation of the status, and the time to the first step."""


def run() -> list[Figure]:
    """Distil and judge."""
    kubectl = Kubectl(CLUSTER, NAMESPACE)
    images = build_images(CLUSTER)
    ensure_kinds(kubectl)
    with operator_aside(kubectl):
        return judge(*asyncio.run(_run(kubectl, images)))


def judge(evaluation: dict[str, dict[str, float]], first_step: str) -> list[Figure]:
    """The figures with their targets. One that was not measured is missed. ``first_step``: from the start of the training's
    pod, with fetching, encoding and what is measured before."""
    student, teacher = evaluation.get("model", {}), evaluation.get("teacher", {})
    compared = evaluation.get("comparison", {})

    def pair(metric: str, show: Any) -> str:
        if metric not in student or metric not in teacher:
            return "not measured"
        return f"{show(student[metric])} against {show(teacher[metric])}"

    def reduced(metric: str) -> str:
        return f": {compared[metric]:.1%} less" if metric in compared else ""

    return [
        Figure("student's accuracy kept", "at least 92 % of the teacher's",
               f"{pair('ExactMatch', lambda v: f'{v:.1%}')}: {compared.get('AccuracyRetained', 0):.1%}",
               compared.get("AccuracyRetained", 0) >= 0.92),
        Figure("student's inference time", "at least 85 % less than the teacher's",
               pair("InferenceTime", lambda v: f"{v * 1000:.1f} ms") + reduced("InferenceTimeReduction"),
               compared.get("InferenceTimeReduction", 0) >= 0.85),
        Figure("student's weights", "at least 95 % less than the teacher's",
               pair("WeightBytes", mb) + reduced("WeightsReduction"), compared.get("WeightsReduction", 0) >= 0.95),
        Figure("memory of the process", "", pair("PeakMemory", mb) + reduced("PeakMemoryReduction")),
        Figure("from the pod's start to the first step", "reported", first_step or "not measured", bool(first_step)),
    ]  # fmt: skip


async def _run(kubectl: Kubectl, images: dict[str, str]) -> Outcome:
    async with Api(CLUSTER.kubeconfig) as api:
        await fresh_namespace(kubectl, api, NAMESPACE)
        try:
            await asyncio.to_thread(ensure_teacher, kubectl, images, lambda text: print(text, flush=True))
            with tempfile.TemporaryDirectory() as folder:
                workers = {name: image for name, image in images.items() if name != "operator"}
                command = operator_command(
                    Path(folder), NAMESPACE, plainHttpRegistries=list(CLUSTER.plain_http), images=workers
                )
                with Process("operator", command, ENVIRONMENT, Path(folder, "log")) as process:
                    kubectl("apply", "-f", MANIFEST)

                    def look() -> Manifest:
                        process.check()
                        return kubectl.get("distillation", "farm-assistant") or {}

                    return await followed(look)
        finally:
            await drop_namespace(kubectl, api, NAMESPACE)


async def followed(look: Callable[[], Manifest], pause: float = 2.0) -> Outcome:
    """Its figures once it has succeeded, and what its status said of the first step meanwhile. Raises RuntimeError when it
    has failed."""
    said = first = ""
    async with asyncio.timeout(LIMIT):
        while True:
            found = look()
            status = found.get("status") or {}
            succeeded = condition(found, "Succeeded")
            if succeeded.get("status") == "True":
                return dict(status["evaluation"]), first
            if succeeded.get("status") == "False":
                raise RuntimeError(f"the distillation failed: {succeeded['reason']}: {succeeded['message']}")
            progress = status.get("progress") or {}
            first = progress.get("firstStep") or first
            told = f"{status.get('phase')} {progress.get('percent', '')}".strip()
            if told != said:
                print(f"[{time.strftime('%H:%M:%S')}] {told}", flush=True)
            said = told
            await asyncio.sleep(pause)
