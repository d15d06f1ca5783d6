"""The steps from an empty cluster to a model on edge nodes. The demo tells them, the end-to-end tests check them."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from demo import assets
from slmkit.registry import Registry
from slmkit.run import RunFailed
from slmops import contract
from slmops.contract import CONFIG_KEY, Artifact, Sink
from slmops.plan.job import pod_spec
from slmops.state import JobState, job_state, waiting_for
from tests.cluster import AnyCluster, choose

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / ".cache" / "images.json"
NAMESPACE = "edge-ai"
STILL_SECONDS = 20 * 60
"""So long nothing may move; how long all of it takes is the machine's affair."""
HELM_SECONDS = 180
PENDING = "owner=helm,name=slmops,status in (pending-install,pending-upgrade,pending-rollback)"
"""Secrets in which helm keeps releases that it is at, or was when it was killed."""
SYSTEM = "slmops-system"
EXAMPLES = ROOT / "crds" / "examples"
REGISTRY = "registry.slm.local:5000"
"""What the examples name: the local cluster's."""
CHAIN = (
    ("quantizedmodel", "teacher", "Succeeded"),
    ("edgedeployment", "teacher", "Promoted"),
    ("distillation", "farm-assistant", "Succeeded"),
    ("finetune", "farm-irrigation", "Succeeded"),
    ("quantizedmodel", "farm-irrigation", "Succeeded"),
    ("edgedeployment", "farms", "Promoted"),
)
"""What the examples come to, in the order in which it comes true: kind, name, condition."""
Manifest = dict[str, Any]


@dataclass
class Kubectl:
    """kubectl and helm against one cluster."""

    cluster: AnyCluster = field(default_factory=choose)
    namespace: str = NAMESPACE

    def __call__(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl; its output."""
        return self._run(self.cluster.bin("kubectl"), *arguments, stdin=stdin, check=check)

    def helm(self, *arguments: str | Path) -> str:
        """Run helm; its output."""
        return self._run(self.cluster.bin("helm"), *arguments)

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """An object, or None."""
        text = self("get", kind, name, "-n", namespace or self.namespace, "-o", "json", "--ignore-not-found")
        return dict(json.loads(text)) if text.strip() else None

    def items(self, kind: str, *arguments: str, namespace: str = "") -> list[Manifest]:
        """The objects of a kind."""
        text = self("get", kind, "-n", namespace or self.namespace, "-o", "json", *arguments)
        return list(json.loads(text)["items"])

    def _run(self, program: Path, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        command = [str(program), "--kubeconfig", str(self.cluster.kubeconfig), *(str(a) for a in arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode and check:
            raise RuntimeError(
                f"{program.name} {' '.join(str(a) for a in arguments[:4])}: {done.stderr.strip()[-1500:]}"
            )
        return done.stdout


class Watch:
    """Whether something moves."""

    def __init__(self) -> None:
        self.last: str | None = None
        """What was seen last."""
        self._since = time.monotonic()

    def still(self, seen: str | None) -> bool:
        """Whether this is what was seen for too long."""
        if seen != self.last:
            self.last, self._since = seen, time.monotonic()
        return time.monotonic() - self._since > STILL_SECONDS


def check_tools() -> None:
    """What building images needs is looked for at the start, not a quarter of an hour later."""
    subprocess.run([sys.executable, str(ROOT / "images" / "build.py"), "--check"], check=True)


def build_images(cluster: AnyCluster) -> dict[str, str]:
    """Build what has changed and push it. Returns the references by name."""
    plain = ["--plain-http"] if cluster.plain_http else []
    program = str(ROOT / "images" / "build.py")
    command = [sys.executable, program, *plain, "--registry", cluster.registry, "--output", str(IMAGES)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return dict(json.loads(IMAGES.read_text()))


def install(kubectl: Kubectl, images: dict[str, str], *plain_http: str) -> None:
    """Install or upgrade the chart and wait until the operator is ready. The registries named speak no TLS."""
    ranges = kubectl.cluster.internal_ranges
    # What is inside is known of the local cluster; of another one all private addresses are taken for inside.
    egress = {"egress": {"internalRanges": list(ranges)}} if ranges else {}
    values = json.dumps({"images": images, "plainHttpRegistries": list(plain_http)} | egress)
    file = ROOT / ".cache" / "values.json"
    file.write_text(values)
    clear_broken_release(kubectl)
    kubectl.helm("upgrade", "--install", "slmops", ROOT / "charts" / "slmops", "-n", SYSTEM, "-f", file,
                 "--take-ownership", "--wait", "--timeout", f"{HELM_SECONDS}s")  # fmt: skip


def clear_broken_release(kubectl: Kubectl) -> None:
    """Forget what a helm that was killed has left: it refuses everything while a release is pending. One that is younger
    than its time-out may be at work yet."""
    while True:
        pending = kubectl.items("secrets", "-l", PENDING, namespace=SYSTEM)
        made = [datetime.fromisoformat(secret["metadata"]["creationTimestamp"]) for secret in pending]
        if not pending:
            return
        if max(made) + timedelta(seconds=HELM_SECONDS) < datetime.now(UTC):
            kubectl("delete", "secrets", "-n", SYSTEM, "-l", PENDING)
            return
        time.sleep(2)


def examples(cluster: AnyCluster, folder: Path = EXAMPLES) -> Iterator[str]:
    """The examples as they are shipped, with the cluster's own registry. Those below ``more`` are no part of the chain."""
    for file in sorted(folder.glob("*.yaml")):
        yield file.read_text().replace(REGISTRY, cluster.registry)


def unfinished(kubectl: Kubectl) -> bool:
    """Whether the chain was begun and is on its way to its end: an interrupted demo goes on in the cluster without us."""
    if not kubectl("get", "crd", "distillations.slmops.dev", "--ignore-not-found", "-o", "name"):
        return False
    found = [(kind, kubectl.get(kind, name), type) for kind, name, type in CHAIN]
    states = [(kind, condition(manifest, type).get("status")) for kind, manifest, type in found]
    failed = any(state == "False" and kind != "edgedeployment" for kind, state in states)
    return any(manifest for _, manifest, _ in found) and not failed and any(state != "True" for _, state in states)


def ensure_teacher(kubectl: Kubectl, images: dict[str, str], tell: Callable[[str], None]) -> str:
    """Train the teacher, unless the registry has the one that these settings make. Returns its address."""
    registry, access = kubectl.cluster.registry, contract.Registry(plain_http=kubectl.cluster.plain_http)
    data = assets.push_datasets(registry, access)
    run = assets.teacher_run(registry, access, data["farm-lessons"])
    tag = assets.fingerprint(run)
    client = Registry(access)
    sink = Sink(repository=f"{registry}/slm/teacher")
    try:
        digest = client.digest_of(f"{sink.repository}:{tag}")
        made = Artifact(reference=f"{sink.repository}@{digest}", size=0)
    except RunFailed:
        made = train_once(kubectl, images, run, f"teacher-{tag}", tell)
        client.tag(sink, made, tag)
    client.tag(sink, made, assets.TAG)
    return made.reference


def train_once(kubectl: Kubectl, images: dict[str, str], run: Any, name: str, tell: Callable[[str], None]) -> Artifact:
    """Train a model in a pod of no resource's, which is deleted afterwards. Returns what it published."""
    pod = pod_spec(
        image=images["trainer"], config_map=name, volumes=[], mounts=[],
        resources={"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "6Gi"}},
    ) | {"restartPolicy": "Never", "nodeSelector": {"pool": "gpu"}}  # fmt: skip
    meta = {"name": name, "namespace": kubectl.namespace}
    items = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {CONFIG_KEY: run.model_dump_json()}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta,
         "spec": {"backoffLimit": 0, "template": {"spec": pod}}},
    ]  # fmt: skip
    if _trained(kubectl, name)[0].phase == "Failed":  # in an earlier run, or while the cluster was away
        _forget(kubectl, name)
    if kubectl.get("job", name) is None:  # one of an interrupted run goes on, also where the image is another by now
        kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    watch = Watch()
    while True:
        state, pods = _trained(kubectl, name)
        if state.phase == "Succeeded" and state.report is not None:
            _forget(kubectl, name)
            tell(f"teacher trained: exact match {state.report.evaluation['model'].exact_match:.1%}")
            return state.report.artifacts["model"]
        if state.phase in ("Failed", "Absent"):
            _forget(kubectl, name)
            raise RuntimeError(f"the teacher's training failed: {state.reason or 'its Job is gone'}: {state.message}")
        if progress := _progress(pods):
            tell(progress)
        if watch.still(progress):
            break
        time.sleep(5)
    raise RuntimeError(f"the teacher's training has not moved for {STILL_SECONDS / 60:.0f} min: {watch.last}; see "
                       f"kubectl describe job {name} -n {kubectl.namespace}")  # fmt: skip


def _trained(kubectl: Kubectl, name: str) -> tuple[JobState, list[Manifest]]:
    """What has become of a Job, and its pods, oldest first."""
    job = kubectl.get("job", name)
    if job is None:
        return JobState("Absent"), []
    pods = kubectl.items("pods", "-l", f"batch.kubernetes.io/job-name={name}")
    pods.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    return job_state(job, pods, {}), pods


def _forget(kubectl: Kubectl, name: str) -> None:
    kubectl("delete", "job,configmap", name, "-n", kubectl.namespace, "--cascade=foreground", "--ignore-not-found")


def _progress(pods: list[Manifest]) -> str | None:
    for pod in pods:
        address = pod["status"].get("podIP")
        if not address:
            return f"teacher: {waiting_for(pod) or 'starting'}"
        try:
            with urllib.request.urlopen(f"http://{address}:9090/progress", timeout=2) as answer:
                said = json.loads(answer.read(16384))
        except (OSError, ValueError):
            continue
        share = f" {100 * said['step'] // said['of']}%" if said.get("of") else ""
        eta = f", {said['eta_seconds']:.0f} s to go" if said.get("eta_seconds") else ""
        return f"teacher: {said['stage']}{share}{eta}"
    return None


def ask(base: str, model: str, content: str, **more: Any) -> Any:
    """One question to a server with the OpenAI API, greedy; the HTTP answer. More of the request's fields may be set."""
    body = {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0, **more}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/v1/chat/completions", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=30)


def condition(manifest: Manifest | None, type: str) -> Manifest:
    """A condition of a resource; empty when it has none."""
    conditions = ((manifest or {}).get("status") or {}).get("conditions") or []
    return next((dict(c) for c in conditions if c["type"] == type), {})


def wait_for(
    what: str, done: Callable[[], bool], seconds: float, show: Callable[[], str] = lambda: "", pause: float = 1.0
) -> None:
    """Wait until it is so; when time is up, fail with the objects."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds:.0f} s\n{show()}")
        time.sleep(pause)
