"""Any batch resource and any state of its children; and what makes a plan and a status valid."""

import json
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft4Validator
from pydantic import TypeAdapter

from slmops.api import crd
from slmops.api.batch import BatchStatus
from slmops.contract import LARGEST, AnyRun, DatasetCounts, Progress
from slmops.kinds import KINDS
from slmops.retraining import ANNOTATION_RETRAIN
from slmops.state import ANNOTATION_REPORT, ANNOTATION_RETRY, Manifest, Observed, Plan
from tests.properties.spoiled import SPOILED, spoiled_annotations, times
from tests.unit.builders import (
    COMPLETE,
    DATA,
    DIGEST,
    FAILED,
    NOW,
    OUTPUT,
    RUNNING,
    SETTINGS,
    body,
    condition,
    ended,
    failure,
    figures,
    live,
    pod,
    reference,
    report,
    said,
    waiting,
)

BATCH_KINDS = ("Distillation", "FineTune", "QuantizedModel")

# --- specs ---------------------------------------------------------------------------------------------------------

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
secrets = st.sampled_from(["a.b", "a-b", "x" * 253, "x" * 252 + "y"])
variants = names | st.sampled_from(["processor-a", "processor-b", "processor-c"])
credentials = st.fixed_dictionaries({"secret": secrets}, optional={"key": st.sampled_from(["token", ".k", "A_b"])})
GOOD_ADDRESSES = ["oci://registry.example/slm/x:v1", "hf://org/name@main", "pvc://claim/a", "pvc://claim/b",
                  "pvc://cl.aim/b", f"pvc://{'c' * 253}/x"]  # fmt: skip
# Most sources lead somewhere, so that most resources have Jobs.
addresses = st.sampled_from([*GOOD_ADDRESSES * 4, "pvc://Bad_claim/x"])
from_address = st.fixed_dictionaries({"uri": addresses}, optional={"credentials": credentials})
REFERENCES = [
    reference(kind, name, status, output=OUTPUT | {"credentials": {"secret": "a.b"}})
    for kind in ("Distillation", "FineTune")
    for name, status in (
        ("ready", {}), ("empty", {"artifact": None}), ("young", {"observedGeneration": 0}), ("new", {"conditions": []}),
        ("failed", {"conditions": [{"type": "Succeeded", "status": "False", "reason": "GateFailed"}]}),
    )
]  # fmt: skip
from_reference = st.builds(
    lambda field, name: {field: {"name": name}}, st.sampled_from(["distillation", "fineTune"]),
    st.sampled_from([*["ready"] * 20, "empty", "young", "new", "failed", "absent"]),
)  # fmt: skip
models = from_address | from_reference
data = st.fixed_dictionaries({"train": from_address}, optional={"validation": from_address})
quantities = st.sampled_from([1, "500m", "3Gi", "16Gi", "0.5"])
runs = st.fixed_dictionaries(
    {},
    optional={
        "image": st.just(f"registry.example/trainer@{DIGEST}"),
        "resources": st.fixed_dictionaries(
            {}, optional={part: st.dictionaries(st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]), quantities)
                          for part in ("requests", "limits")}
        ),
        "nodeSelector": st.dictionaries(st.sampled_from(["pool", "zone"]), st.sampled_from(["gpu", "a"])),
        "tolerations": st.lists(st.just({"key": "gpu", "operator": "Exists"}), max_size=2),
        "deadline": st.sampled_from(["0s", "500ms", "1h30m", "9d"]),
        "retries": st.integers(0, 3),
    },
)  # fmt: skip
bounds = st.sampled_from(["92%", "0%", 0, 1, "200ms", "1.5m", "600Mi"])
gates = st.lists(
    st.builds(
        lambda metric, side, bound: {"metric": metric, side: bound},
        st.sampled_from(["ExactMatch", "AccuracyRetained", "InferenceTime", "WeightsReduction"]),
        st.sampled_from(["min", "max"]), bounds,
    ),
    max_size=3,
)  # fmt: skip
outputs = st.just(OUTPUT) | credentials.map(lambda secret: OUTPUT | {"credentials": secret})
PRICE = {"perGpuHour": "2.50", "perNodeHour": 1, "currency": "EUR"}
budgets = st.sampled_from(
    [{"gpuHours": 1}, {"price": PRICE}, {"price": PRICE, "max": "9.99"}, {"gpuHours": 0, "price": PRICE}]
)
common = {"gates": gates, "run": runs, "budget": budgets}
SPECS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "Distillation": st.fixed_dictionaries(
        {
            "teacher": models.map(lambda model: {"model": model})
            | st.just({"endpoint": {"url": "http://t:8080/v1", "model": "big", "credentials": {"secret": "a.b"}}}),
            "student": models.map(lambda model: {"model": model}) | st.just({"architecture": {}}),
            "data": data,
            "output": outputs,
        },
        optional={**common, "labelling": runs},
    ),
    "FineTune": st.fixed_dictionaries(
        {"base": models, "data": data, "output": outputs},
        optional={**common, "method": st.just("Full"), "merge": st.booleans()},
    ),
    "QuantizedModel": st.fixed_dictionaries(
        {"model": models, "output": outputs},
        optional={
            "gates": gates,
            "run": runs,
            "variants": st.lists(variants.map(lambda name: {"name": name}), min_size=1, max_size=4),
            "evaluation": st.just({"data": DATA}),
            "compress": st.sampled_from([{"prune": {"sparsity": 0.3}}, {"prune": {"structure": "2:4"}}]),
            "budget": budgets,
        },
    ),
}
words = st.sampled_from([ANNOTATION_RETRY, ANNOTATION_RETRAIN, "slmops.dev/other"])
annotations = st.dictionaries(words, st.text(max_size=5), max_size=2)


@st.composite
def bodies(draw: st.DrawFn, kind: str) -> Manifest:
    """Any resource of a kind that the API server takes."""
    metadata = {"generation": draw(st.integers(1, 9)), "annotations": draw(annotations)}
    return body(kind, draw(SPECS[kind]), name=draw(names), metadata=metadata, status=draw(st.sampled_from(SPOILED)))


# --- states --------------------------------------------------------------------------------------------------------

MEASURED = {role: figures(value, inference_seconds=5e-324, weight_bytes=LARGEST)
            for role, value in (("model", 1.0), ("teacher", 5e-324), ("reference", 0.5))}  # fmt: skip
texts = st.sampled_from(
    [
        *(said(report(*made, evaluation=MEASURED)) for made in (("dataset", "model", "image"), ("dataset",), ())),
        said(report("image", dataset=DatasetCounts(prompts=LARGEST, labelled=0, kept=0))),
        failure("InvalidData", "x" * 1024), "", "done", "{}", "[" * 99, said(report("dataset"))[:-9],
        '{"outcome": "Failed"}',
    ]
)  # fmt: skip
states = st.one_of(
    st.none(), st.just(RUNNING), st.just(ended(0, said(report("dataset", "model", "image")))),
    st.sampled_from(["ErrImagePull", "ContainerCreating"]).map(waiting),
    st.builds(ended, st.sampled_from([0, 0, 1, 3, 137]), texts, st.sampled_from([None, "OOMKilled"])),
)  # fmt: skip
conditions = st.just([]) | st.just([COMPLETE]) | st.lists(
    st.sampled_from([COMPLETE, FAILED, condition("SuccessCriteriaMet"), condition("FailureTarget", "PodFailurePolicy"),
                     condition("Failed", "DeadlineExceeded"), condition("Complete", status="False")]), max_size=2
)  # fmt: skip
progresses = st.builds(
    Progress, stage=st.sampled_from(["Training", "Succeeded", "Failed", "x" * 32]), step=st.integers(0, LARGEST),
    of=st.integers(0, LARGEST), loss=st.floats(allow_nan=False, allow_infinity=False),
    tokens_per_second=st.floats(0, LARGEST), eta_seconds=st.floats(0, LARGEST),
)  # fmt: skip


@st.composite
def sights(draw: st.DrawFn, manifest: Manifest) -> Observed:
    """Any state of the children, round after round, so that later steps are reached too."""
    found: dict[tuple[str, str], Manifest] = {}
    pods: list[Manifest] = []
    progress: dict[str, Progress] = {}
    for _ in range(2):
        before = Observed(tuple(found.values()), tuple(pods), by_name(REFERENCES), (), progress)
        for wanted in planned(manifest, before).apply:
            if draw(st.integers(0, 9)) == 0:
                continue
            child = live(wanted, *draw(conditions) if wanted["kind"] == "Job" else ())
            kept = draw(st.none() | texts)
            if kept is not None:
                child["metadata"]["annotations"] = child["metadata"].get("annotations", {}) | {ANNOTATION_REPORT: kept}
            if child["kind"] == "Job" and draw(st.integers(0, 4)) == 0:
                spoiled = draw(spoiled_annotations)
                child["metadata"]["annotations"] = child["metadata"].get("annotations", {}) | spoiled
            found[child["kind"], child["metadata"]["name"]] = child
            if child["kind"] == "Job":
                child["spec"]["suspend"] = draw(st.integers(0, 9)) == 0
                for number, state in enumerate(draw(st.lists(states, max_size=3))):
                    pods.append(pod(child, number, state, startTime=draw(times)))
                    progress[pods[-1]["metadata"]["uid"]] = draw(progresses)
    if draw(st.booleans()):
        stray = live(body("FineTune", name="stray")) | {"kind": draw(st.sampled_from(["Job", "ConfigMap", "Service"]))}
        found["stray", "stray"] = stray
    return Observed(tuple(found.values()), tuple(pods), by_name(REFERENCES), (), progress)


def by_name(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    return {(m["kind"], m["metadata"]["name"]): m for m in manifests}


def planned(manifest: Manifest, observed: Observed) -> Plan:
    kind = KINDS[manifest["kind"]]
    return kind.plan(kind.model.model_validate(manifest), observed, SETTINGS, NOW)


# --- validity ------------------------------------------------------------------------------------------------------

DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}
STATUSES = {
    kind.kind(): Draft4Validator(
        crd.crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    )
    for kind in crd.KINDS
}


def check_plan(manifest: Manifest, observed: Observed, plan: Plan) -> None:
    """Everything that a plan for this resource has to keep, whatever was observed."""
    identities = [(m["kind"], m["metadata"]["name"]) for m in plan.apply]
    assert len(identities) == len(set(identities))
    for made in plan.apply:
        metadata = made["metadata"]
        assert DNS_NAME.fullmatch(metadata["name"]), metadata["name"]
        assert metadata["namespace"] == manifest["metadata"]["namespace"]
        assert [owner["uid"] for owner in metadata["ownerReferences"]] == [manifest["metadata"]["uid"]]
        assert all(LABEL.fullmatch(value) for value in metadata["labels"].values())
        assert observed.child(made["kind"], metadata["name"]) is None, "a child that is there is never edited"
        if made["kind"] == "Job":
            check_pod(made["spec"]["template"]["spec"])
            assert made["spec"]["activeDeadlineSeconds"] >= 1
            config = ("ConfigMap", metadata["name"])
            assert config in identities or observed.child(*config) is not None
        else:
            run = TypeAdapter(AnyRun).validate_json(made["data"]["run.json"])
            assert getattr(run, "run", "") == metadata["name"]
    for target in (*plan.remove, *(live_one for live_one, _ in plan.annotate)):
        assert sum(target is child for child in observed.children) == 1
    removed = [id(child) for child in plan.remove]
    assert len(removed) == len(set(removed))
    assert not set(identities) & {(child["kind"], child["metadata"]["name"]) for child in plan.remove}
    assert plan.problem is None or plan.problem.message


def check_pod(spec: Manifest) -> None:
    """Pod Security *restricted*, no token, and volumes that fit together."""
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName", "initContainers"} & set(spec)
    (container,) = spec["containers"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "hostPort" not in container["ports"][0]
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert len(volumes) == len(set(volumes))
    assert all(DNS_NAME.fullmatch(name) for name in volumes)
    assert all(set(volume) - {"name"} <= RESTRICTED_VOLUMES for volume in spec["volumes"])
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    places = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert len(places) == len(set(places))
    assert not any(":" in place for place in places)
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    assert {"cpu", "memory"} <= set(requests)
    assert "memory" in limits


def check_status(kind: str, status: BatchStatus) -> None:
    """What the API server asks of a status, and what people may rely on."""
    dumped = status.dump()
    assert type(status).model_validate(dumped) == status
    wire = json.loads(json.dumps(dumped, allow_nan=False))
    STATUSES[kind].validate(wire)
    assert all(abs(number) < 2**63 for number in numbers(wire) if isinstance(number, int))
    assert len(json.dumps(wire)) < 100_000
    types = [found["type"] for found in wire["conditions"]]
    assert len(types) == len(set(types))
    assert types[:2] == ["Accepted", "InputsResolved"]
    assert types[-1] == "Succeeded"
    *others, last = (found["status"] for found in wire["conditions"])
    assert last == ("False" if "False" in others else "Unknown" if "Unknown" in others else "True")
    assert (wire["phase"] == "Succeeded") == (last == "True")
    assert (wire["phase"] == "Failed") == (last == "False")
    assert 0 <= wire.get("progress", {}).get("percent", 0) <= 100
    assert all(found["message"] for found in wire["conditions"] if found["status"] == "False")
    variants = [variant["name"] for variant in wire.get("variants", [])]
    assert len(variants) == len(set(variants))


def numbers(node: Any) -> Iterator[float]:
    """All numbers in a value."""
    if isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            yield from numbers(part)
    elif isinstance(node, int | float):
        yield node
