"""The status of a QuantizedModel: each variant by itself, then all of them together."""

from datetime import datetime

from slmops.api.quantizedmodel import QuantizedModel, QuantizedModelStatus
from slmops.contract import PackedAdapter, Progress, Report
from slmops.plan.quantizedmodel import plan_quantizedmodel
from slmops.state import Manifest, Observed
from slmops.status.quantizedmodel import quantizedmodel_status
from tests.unit.builders import (
    COMPLETE,
    DATA,
    DIGEST,
    FAILED,
    NOW,
    RUNNING,
    SETTINGS,
    ended,
    facts,
    failure,
    figures,
    live,
    pod,
    quantizedmodel,
    reference,
    report,
    said,
    together,
    told,
    waiting,
)

TWO = {
    "variants": [{"name": "int4"}, {"name": "int8", "precision": "INT8", "target": {"architecture": "arm64"}}],
    "evaluation": {"data": DATA},
    "gates": [{"metric": "AccuracyRetained", "min": "92%"}],
}
RESOURCE = quantizedmodel(TWO)


def built(exact_match: float = 0.9) -> Report:
    return report(
        "image", evaluation={"model": figures(exact_match), "reference": figures(0.9)}, inputs={"model": "m@1"}
    )


def status_of(observed: Observed, resource: QuantizedModel = RESOURCE, now: datetime = NOW) -> QuantizedModelStatus:
    return quantizedmodel_status(resource, observed, plan_quantizedmodel(resource, observed, SETTINGS), now)


def seen(*states: Report | Manifest | None, resource: QuantizedModel = RESOURCE, progress: str = "") -> Observed:
    """One Job a variant: ended with a report, with its container in a state, or without a pod."""
    plan = plan_quantizedmodel(resource, Observed(), SETTINGS)
    children, pods = [], []
    for job, state in zip((m for m in plan.apply if m["kind"] == "Job"), states, strict=True):
        if isinstance(state, Report):
            children.append(live(job, COMPLETE))
            pods.append(pod(children[-1], state=ended(0, said(state))))
        else:
            failed = state is not None and "terminated" in state
            children.append(live(job, *([FAILED] if failed else [])))
            pods += [pod(children[-1], state=state)] if state else []
    running = [p["metadata"]["uid"] for p in pods if p["status"]["phase"] == "Running"]
    return Observed(
        children=tuple(children), pods=tuple(pods),
        progress={uid: Progress(stage=progress) for uid in running if progress},
    )  # fmt: skip


def phases(status: QuantizedModelStatus) -> dict[str, str]:
    return {variant.name: variant.phase for variant in status.variants}


def indexed(state: Report | Manifest | None = None) -> Observed:
    """Both variants are built, and the Job of their index is in a state."""
    before = seen(built(), built())
    plan = plan_quantizedmodel(RESOURCE, before, SETTINGS)
    job = next(manifest for manifest in plan.apply if manifest["kind"] == "Job")
    if isinstance(state, Report):
        made = live(job, COMPLETE)
        return together(before, Observed(children=(made,), pods=(pod(made, state=ended(0, said(state))),)))
    made = live(job, *([FAILED] if state and "terminated" in state else []))
    return together(before, Observed(children=(made,), pods=(pod(made, state=state),) if state else ()))


def test_variants_for_several_platforms_are_published_when_their_index_is() -> None:
    waiting_for_it = status_of(seen(built(), built()))
    assert phases(waiting_for_it) == {"int4": "Ready", "int8": "Ready"}
    assert facts(waiting_for_it)["Published"] == ("Unknown", "Pending")
    assert status_of(indexed(RUNNING)).phase == "Publishing"
    status = status_of(indexed(report("index")))
    assert facts(status)["Published"] == ("True", "Pushed")
    assert status.index is not None
    assert status.index.reference == f"registry.example/slm/index@{DIGEST}"
    assert len(status.variants) == 2


def test_an_index_that_fails_says_why_and_takes_no_variant_with_it() -> None:
    status = status_of(indexed(ended(3, failure("RegistryRefused", "read only"))))
    assert facts(status)["Published"] == ("False", "RegistryRefused")
    assert phases(status) == {"int4": "Ready", "int8": "Ready"}
    assert (status.phase, status.index) == ("Failed", None)


def test_variants_for_one_platform_have_no_index() -> None:
    resource = quantizedmodel({"variants": [{"name": "int4"}, {"name": "int8", "precision": "INT8"}]})
    status = status_of(seen(built(), built(), resource=resource), resource)
    assert (status.phase, status.index) == ("Succeeded", None)


def test_all_variants_ready_is_success() -> None:
    status = status_of(indexed(report("index")))
    assert (status.phase, status.ready) == ("Succeeded", "2/2")
    assert phases(status) == {"int4": "Ready", "int8": "Ready"}
    assert {fact[0] for fact in facts(status).values()} == {"True"}
    first, second = status.variants
    assert (first.reference, first.size) == (f"registry.example/slm/image@{DIGEST}", "3Mi")
    assert (first.precision, first.architecture) == ("INT4", "amd64")
    assert (second.precision, second.architecture) == ("INT8", "arm64")
    assert status.inputs == {"model": "m@1"}


def test_the_licence_of_the_model_is_in_the_status() -> None:
    resource = quantizedmodel()
    status = status_of(seen(report("image", licenses={"model": "Apache-2.0"}), resource=resource), resource)
    assert status.licenses == {"model": "Apache-2.0"}


def test_what_the_last_look_saw_is_told() -> None:
    gpu = quantizedmodel(
        {"variants": [{"name": "a"}, {"name": "b", "precision": "FP16", "target": {"device": "CUDA"}}]}
    )
    seen_of = report("image", verification={"similarity": 0.99123, "greedy_agreement": 0.75, "prompts": 4})
    status = status_of(seen(seen_of, seen_of, resource=gpu), gpu)
    first, second = status.variants
    assert first.verification is not None
    assert (first.verification.loads, first.verification.similarity) == (True, 0.9912)
    assert first.verification.greedy_agreement == 0.75
    assert second.verification is not None
    assert (second.device, second.verification.loads) == ("CUDA", False), "it was tried on a CPU"


def test_a_variant_that_misses_a_gate_is_rejected_and_the_other_is_ready() -> None:
    status = status_of(seen(built(0.5), built()))
    assert phases(status) == {"int4": "Rejected", "int8": "Ready"}
    assert (status.phase, status.ready) == ("Failed", "1/2")
    assert facts(status)["Quantized"] == ("True", "Built")
    assert facts(status)["Succeeded"] == ("False", "GateFailed")
    assert "AccuracyRetained is 55.56%" in str(status.variants[0].message)
    assert status.variants[1].message is None


def test_a_variant_that_has_nothing_to_compare_with_says_so() -> None:
    nothing = report("image", evaluation={"model": figures(0.5), "reference": figures(0.0)})
    status = status_of(seen(nothing, built()))
    assert phases(status) == {"int4": "Rejected", "int8": "Ready"}
    assert facts(status)["Succeeded"] == ("False", "NotComparable")
    assert "(the reference's ExactMatch is 0%)" in str(status.variants[0].message)


def test_a_variant_that_failed_is_named_and_the_other_goes_on() -> None:
    status = status_of(seen(ended(3, failure("ConversionFailed", "no such operator")), RUNNING, progress="Verifying"))
    assert phases(status) == {"int4": "Failed", "int8": "Running"}
    assert facts(status)["Quantized"] == ("False", "ConversionFailed")
    assert told(status, "Quantized").startswith("int4: no such operator. Change the setting")
    assert "int8" not in told(status, "Quantized")
    assert status.progress is not None
    assert status.progress.stage == "Verifying"


THREE = quantizedmodel({
    "variants": [{"name": "int4"}, {"name": "int8", "precision": "INT8"}, {"name": "fp32", "precision": "FP32"}],
    "evaluation": {"data": DATA},
})  # fmt: skip
SMALL = report("image", evaluation={"model": figures(0.9, weight_bytes=1 << 20), "reference": figures(0.9)})
LARGE = report("image", evaluation={"model": figures(0.9, weight_bytes=1 << 21), "reference": figures(0.9)})
MEMORY = ended(3, failure("OutOfMemory", "more than its limit"))


def compared(state: Report | Manifest) -> Observed:
    """Two of three variants are built, and the Job that compares them is in a state."""
    before = seen(SMALL, LARGE, MEMORY, resource=THREE)
    job = next(m for m in plan_quantizedmodel(THREE, before, SETTINGS).apply if m["kind"] == "Job")
    end = [COMPLETE] if isinstance(state, Report) else [FAILED] if "terminated" in state else []
    made = live(job, *end)
    inside = ended(0, said(state)) if isinstance(state, Report) else state
    return together(before, Observed(children=(made,), pods=(pod(made, state=inside),)))


def test_a_variant_that_failed_does_not_hide_what_became_of_the_others() -> None:
    status = status_of(compared(report("comparison")), THREE)
    assert phases(status) == {"int4": "Ready", "int8": "Ready", "fp32": "Failed"}
    assert [(row.name, row.size, row.optimal) for row in status.comparison] == [
        ("int4", "1Mi", True),
        ("int8", "2Mi", False),
    ]
    assert status.report == f"registry.example/slm/comparison@{DIGEST}"
    assert facts(status) == {
        "Accepted": ("True", "Valid"), "InputsResolved": ("True", "Resolved"), "Quantized": ("False", "OutOfMemory"),
        "Evaluated": ("True", "Measured"), "Published": ("True", "Pushed"), "Succeeded": ("False", "OutOfMemory"),
    }  # fmt: skip


def test_a_comparison_that_fails_is_told_beside_a_variant_that_failed() -> None:
    status = status_of(compared(ended(3, failure("RegistryRefused", "read only"))), THREE)
    assert facts(status)["Published"] == ("False", "RegistryRefused")
    assert len(status.comparison) == 2
    assert status.report is None
    assert facts(status_of(compared(RUNNING), THREE))["Published"] == ("Unknown", "Running")


def test_where_nothing_is_built_nothing_is_judged_nor_published() -> None:
    status = status_of(seen(MEMORY, MEMORY, MEMORY, resource=THREE), THREE)
    assert facts(status)["Evaluated"] == facts(status)["Published"] == ("Unknown", "Pending")


def test_two_variants_that_failed_are_both_named() -> None:
    end = ended(3, failure("ConversionFailed", "no such operator"))
    assert "int4: " in (message := told(status_of(seen(end, end)), "Quantized"))
    assert "; int8: " in message


def test_many_variants_that_failed_make_a_message_that_the_api_server_takes() -> None:
    resource = quantizedmodel({"variants": [{"name": f"v{number}"} for number in range(16)]})
    end = ended(3, failure("ConversionFailed", "x" * 1024))
    status = status_of(seen(*[end] * 16, resource=resource), resource)
    assert len(told(status, "Quantized")) == 2048


def test_nothing_is_judged_before_all_variants_are_done() -> None:
    status = status_of(seen(built(0.5), RUNNING, progress="Converting"))
    assert phases(status) == {"int4": "Rejected", "int8": "Running"}
    assert facts(status)["Evaluated"] == ("Unknown", "Pending")
    assert facts(status)["Succeeded"] == ("Unknown", "Running")
    assert status.phase == "Converting"


def test_the_phase_is_that_of_the_variant_that_runs() -> None:
    assert status_of(seen(None, RUNNING, progress="Publishing")).phase == "Publishing"
    assert status_of(seen(None, RUNNING)).phase == "Quantizing"
    assert status_of(seen(None, None)).phase == "Pending"


def test_an_image_that_is_missing_is_told_with_the_variant_that_waits_for_it() -> None:
    status = status_of(seen(waiting("ImagePullBackOff", "not found"), built()))
    assert facts(status)["Quantized"] == ("False", "ImageUnavailable")
    assert "cannot be pulled: not found. Push the image" in str(status.variants[0].message)


def test_while_the_model_is_waited_for_every_variant_is_pending() -> None:
    resource = quantizedmodel(TWO | {"model": {"fineTune": {"name": "tuned"}}})
    status = status_of(Observed(), resource)
    assert (status.phase, status.ready) == ("Pending", "0/2")
    assert phases(status) == {"int4": "Pending", "int8": "Pending"}
    assert facts(status)["Succeeded"] == ("Unknown", "ReferenceNotFound")
    failed = {"conditions": [{"type": "Succeeded", "status": "False", "reason": "GateFailed"}]}
    observed = together(Observed(), references=[reference("FineTune", "tuned", failed)])
    assert "FineTune tuned failed (GateFailed)" in told(status_of(observed, resource), "InputsResolved")


def test_without_gates_what_is_built_is_ready() -> None:
    resource = quantizedmodel()
    status = status_of(seen(report("image"), resource=resource), resource)
    assert (status.phase, status.ready, phases(status)) == ("Succeeded", "1/1", {"cpu-int4": "Ready"})
    assert facts(status)["Evaluated"] == ("True", "Measured")


def test_a_name_that_is_used_twice_is_shown_once_so_that_the_status_can_be_written() -> None:
    resource = quantizedmodel({"variants": [{"name": "a"}, {"name": "a", "precision": "INT8"}, {"name": "b"}]})
    status = status_of(Observed(), resource)
    assert facts(status)["Accepted"] == facts(status)["Succeeded"] == ("False", "DuplicateName")
    assert [variant.name for variant in status.variants] == ["a", "b"]


# --- adapters


def test_the_adapters_of_an_image_are_told_by_layer_and_size() -> None:
    resource = quantizedmodel({"adapters": [{"name": "irrigation", "uri": "oci://registry.example/slm/a:v1"}]})
    packed = PackedAdapter(layer=DIGEST, size=288_768, similarity=0.987654321)
    (row,) = status_of(seen(report("image", adapters={"irrigation": packed}), resource=resource), resource).variants
    assert [each.dump() for each in row.adapters] == [
        {"name": "irrigation", "layer": DIGEST, "size": "282Ki", "similarity": 0.9877}
    ]  # fmt: skip
    (row,) = status_of(seen(None, resource=resource), resource).variants
    assert row.adapters == []
