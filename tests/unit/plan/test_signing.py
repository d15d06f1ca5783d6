"""What was published is signed by a Job of its own, once it has passed its gates; the status says whether."""

import json
from typing import Any

import pytest

from slmops.api.finetune import FineTune
from slmops.api.quantizedmodel import QuantizedModel
from slmops.contract import Report
from slmops.kinds import KINDS
from slmops.state import ANNOTATION_RETRY, Manifest, Observed, Plan
from tests.unit.builders import (
    COMPLETE,
    DATA,
    DIGEST,
    FAILED,
    NOW,
    OUTPUT,
    RUNNING,
    SETTINGS,
    distillation,
    ended,
    facts,
    failure,
    figures,
    finetune,
    live,
    pod,
    quantizedmodel,
    report,
    said,
    told,
)

SIGNED = {"output": OUTPUT | {"sign": {"secret": "cosign"}}}
GATE = {"gates": [{"metric": "ExactMatch", "min": "80%"}], "evaluation": {"data": DATA}}
FINGERPRINT = f"sha256:{'cd' * 32}"
GOOD = {"evaluation": {"model": figures(0.9)}}
BAD = {"evaluation": {"model": figures(0.1)}}
TWO: dict[str, Any] = {"data": None, "adapters": [{"name": name, "data": {"train": DATA}} for name in ("a", "b")]}
DONE = Report(outcome="Succeeded", signer=FINGERPRINT)


def plan_of(resource: Any, observed: Observed) -> Plan:
    return KINDS[resource.kind()].plan(resource, observed, SETTINGS, NOW)


def status_of(resource: Any, observed: Observed) -> Any:
    return KINDS[resource.kind()].status(resource, observed, plan_of(resource, observed), NOW)


def after(resource: Any, reports: dict[str, Report | str | None], passes: int = 8) -> Observed:
    """What is there once all has been done: the Jobs end with these reports, by role; a text is a failure's report, and
    with None the Job still runs."""
    children: list[Manifest] = []
    pods: list[Manifest] = []
    for _ in range(passes):
        plan = plan_of(resource, Observed(children=tuple(children), pods=tuple(pods)))
        gone = {id(child) for child in plan.remove}
        children = [child for child in children if id(child) not in gone]
        roles = {step.name: step.role for step in plan.steps}
        for manifest in plan.apply:
            if manifest["kind"] != "Job":
                children.append(live(manifest))
                continue
            end = reports[roles[manifest["metadata"]["name"]]]
            job = live(manifest, *({Report: [COMPLETE], str: [FAILED]}.get(type(end), [])))
            children.append(job)
            state = RUNNING if end is None else ended(0, said(end)) if isinstance(end, Report) else ended(3, end)
            pods.append(pod(job, state=state))
    return Observed(children=tuple(children), pods=tuple(pods))


def configuration(observed: Observed) -> dict[str, Any] | None:
    """What the Job that signs is told; None where there is none."""
    found = [json.loads(c["data"]["run.json"]) for c in observed.of_kind("ConfigMap")]
    return next((run for run in found if run["type"] == "Sign"), None)


def job_of(observed: Observed) -> Manifest:
    (found,) = [j for j in observed.of_kind("Job") if j["metadata"]["labels"]["slmops.dev/role"] == "sign"]
    return found


KIND_REPORTS: list[tuple[Any, dict[str, Report | str | None], set[str]]] = [
    (finetune(SIGNED), {"train": report("adapter", "model", "logs", **GOOD), "sign": DONE}, {"adapter", "model"}),
    (
        distillation(SIGNED),
        {"label": report("dataset", "data"), "train": report("model", **GOOD), "sign": DONE},
        {"dataset", "model"},
    ),
    (quantizedmodel(SIGNED), {"q-cpu-int4": report("image"), "sign": DONE}, {"image.cpu-int4"}),
    (
        finetune(SIGNED | TWO),
        {"train-a": report("adapter", "layer"), "train-b": report("adapter", "layer"), "join": report("image"),
         "sign": DONE},
        {"adapter.a", "adapter.b", "image"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "reports", "made"), KIND_REPORTS)
def test_what_has_documents_is_signed_with_the_last_job(
    resource: Any, reports: dict[str, Report | str | None], made: set[str]
) -> None:
    observed = after(resource, reports)
    run = configuration(observed)
    assert run is not None
    assert set(run["artifacts"]) == made
    assert run["output"]["repository"] == OUTPUT["repository"]
    status = status_of(resource, observed)
    assert facts(status)["Signed"] == ("True", "Signed")
    assert told(status, "Signed") == f"with the key {FINGERPRINT}"
    assert facts(status)["Succeeded"] == ("True", "Completed")


@pytest.mark.parametrize(("resource", "reports", "made"), KIND_REPORTS)
def test_nothing_is_signed_and_nothing_said_of_it_where_nobody_asks(
    resource: Any, reports: dict[str, Report | str | None], made: set[str]
) -> None:
    plain = resource.model_copy(
        update={
            "spec": resource.spec.model_copy(update={"output": resource.spec.output.model_copy(update={"sign": None})})
        }
    )
    observed = after(plain, reports)
    assert configuration(observed) is None
    assert "Signed" not in facts(status_of(plain, observed))
    assert facts(status_of(plain, observed))["Succeeded"] == ("True", "Completed")
    assert [j["metadata"]["name"] for j in observed.of_kind("Job")] == [
        j["metadata"]["name"] for j in after(resource, reports).of_kind("Job")
    ][:-1], "to ask for signatures makes no other Job anew"


@pytest.mark.parametrize(("resource", "reports", "made"), KIND_REPORTS)
def test_it_has_not_succeeded_before_it_is_signed(
    resource: Any, reports: dict[str, Report | str | None], made: set[str]
) -> None:
    observed = after(resource, reports | {"sign": None})
    status = status_of(resource, observed)
    assert facts(status)["Signed"] == ("Unknown", "Running")
    assert facts(status)["Succeeded"] == ("Unknown", "Running")
    assert status.phase == "Signing"


def test_how_a_training_went_is_still_told_once_all_is_signed() -> None:
    resource = finetune(SIGNED)
    observed = after(resource, {"train": report("model", resumes=2, lost_steps=5), "sign": DONE})
    progress = status_of(resource, observed).progress
    assert (progress.resumes, progress.lost_steps) == (2, 5)


def test_the_private_key_is_in_the_job_that_signs_and_in_no_other() -> None:
    observed = after(KIND_REPORTS[0][0], KIND_REPORTS[0][1])
    signing = job_of(observed)
    (volume,) = [v for v in signing["spec"]["template"]["spec"]["volumes"] if v["name"] == "signing-key"]
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "cosign", "items": [{"key": "cosign.key", "path": "cosign.key"}], "optional": False}},
        {
            "secret": {
                "name": "cosign",
                "items": [{"key": "cosign.password", "path": "cosign.password"}],
                "optional": True,
            }
        },
    ]
    others = [job for job in observed.of_kind("Job") if job is not signing]
    assert others
    assert "cosign" not in json.dumps(others)
    assert signing["spec"]["template"]["spec"]["containers"][0]["image"] == SETTINGS.images.bench


def test_where_the_work_runs_is_where_it_is_signed_without_its_gpu() -> None:
    run = {
        "nodeSelector": {"pool": "gpu"},
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "retries": 1,
        "queue": "team",
    }
    image = {"image": f"registry.example/own/trainer@{DIGEST}"}
    observed = after(finetune(SIGNED | {"run": run | image}), {"train": report("model"), "sign": DONE})
    spec = job_of(observed)["spec"]
    pod_spec = spec["template"]["spec"]
    assert pod_spec["nodeSelector"] == {"pool": "gpu"}
    assert "nvidia.com/gpu" not in json.dumps(pod_spec)
    assert pod_spec["containers"][0]["image"] == SETTINGS.images.bench
    assert spec["backoffLimit"] == 1


# --- gates


@pytest.mark.parametrize(
    ("resource", "reports"),
    [
        (finetune(SIGNED | GATE), {"train": report("model", **BAD)}),
        (distillation(SIGNED | GATE), {"label": report("dataset"), "train": report("model", **BAD)}),
        (quantizedmodel(SIGNED | GATE), {"q-cpu-int4": report("image", **BAD)}),
        (
            finetune(SIGNED | GATE | TWO),
            {"train-a": report("adapter", "layer", **GOOD), "train-b": report("adapter", "layer", **BAD),
             "join": report("image")},
        ),
    ],
)  # fmt: skip
def test_what_misses_a_gate_is_not_signed(resource: Any, reports: dict[str, Report | str | None]) -> None:
    observed = after(resource, reports)
    assert configuration(observed) is None
    status = status_of(resource, observed)
    assert facts(status)["Signed"] == ("Unknown", "Pending")
    assert facts(status)["Succeeded"] == ("False", "GateFailed")


THREE = {"variants": [{"name": "one"}, {"name": "two", "precision": "INT8"}, {"name": "three", "precision": "FP32"}]}


def test_the_variants_that_passed_are_signed_once_none_is_to_come() -> None:
    resource: QuantizedModel = quantizedmodel(SIGNED | GATE | THREE)
    reports: dict[str, Report | str | None] = {
        "q-one": report("image", **GOOD), "q-two": report("image", **BAD), "q-three": None, "sign": DONE,
    }  # fmt: skip
    assert configuration(after(resource, reports)) is None
    observed = after(resource, reports | {"q-three": failure("ConversionFailed")})
    run = configuration(observed)
    assert run is not None
    assert list(run["artifacts"]) == ["image.one"]
    assert facts(status_of(resource, observed))["Signed"] == ("True", "Signed")


# --- failures


def test_a_key_that_cannot_be_used_is_told_and_costs_no_training() -> None:
    resource: FineTune = finetune(SIGNED)
    observed = after(resource, {"train": report("model"), "sign": failure("KeyUnusable", "there is no key cosign.key")})
    status = status_of(resource, observed)
    assert facts(status)["Published"] == ("True", "Pushed")
    assert facts(status)["Signed"] == facts(status)["Succeeded"] == ("False", "KeyUnusable")
    assert "cosign generate-key-pair" in told(status, "Signed")
    again = finetune(SIGNED, metadata={"annotations": {ANNOTATION_RETRY: "1"}})
    plan = plan_of(again, observed)
    assert [job["metadata"]["labels"]["slmops.dev/role"] for job in plan.remove] == ["sign"]


def test_an_image_that_knows_nothing_of_signatures_has_signed_nothing() -> None:
    resource = finetune(SIGNED)
    observed = after(resource, {"train": report("model"), "sign": Report(outcome="Succeeded")})
    assert facts(status_of(resource, observed))["Signed"] == ("False", "NotSigned")
    assert facts(status_of(resource, observed))["Succeeded"] == ("False", "NotSigned")


def test_the_documents_to_sign_are_those_that_the_run_told_of() -> None:
    made = report("model")
    documents = (f"sha256:{'01' * 32}", f"sha256:{'02' * 32}")
    told_of = made.model_copy(
        update={"artifacts": {"model": made.artifacts["model"].model_copy(update={"documents": documents})}}
    )
    run = configuration(after(finetune(SIGNED), {"train": told_of, "sign": DONE}))
    assert run is not None
    assert tuple(run["artifacts"]["model"]["documents"]) == documents


def test_an_index_is_signed_with_the_documents_that_its_run_told_of() -> None:
    made, documents = report("index"), (f"sha256:{'01' * 32}",)
    told_of = made.model_copy(
        update={"artifacts": {"index": made.artifacts["index"].model_copy(update={"documents": documents})}}
    )
    variants = [{"name": "amd"}, {"name": "arm", "target": {"architecture": "arm64"}}]
    reports = {"q-amd": report("image"), "q-arm": report("image"), "index": told_of, "sign": DONE}
    run = configuration(after(quantizedmodel(SIGNED | {"variants": variants}), reports))
    assert run is not None
    assert run["artifacts"].keys() == {"image.amd", "image.arm", "index"}
    assert tuple(run["artifacts"]["index"]["documents"]) == documents


def test_keys_that_inputs_were_verified_with_are_in_the_status() -> None:
    made = report("model", verified={"base": FINGERPRINT})
    resource = finetune()
    assert status_of(resource, after(resource, {"train": made})).verified == {"base": FINGERPRINT}
    model = quantizedmodel()
    quantized = report("image", verified={"model": FINGERPRINT})
    assert status_of(model, after(model, {"q-cpu-int4": quantized})).verified == {"model": FINGERPRINT}
