"""What ``kubectl get qm`` shows: how far all Jobs are together, and sizes and what is kept of every variant."""

from slmops.api.quantizedmodel import QuantizedModel, QuantizedModelStatus
from slmops.contract import Progress, Report
from slmops.plan.quantizedmodel import plan_quantizedmodel
from slmops.state import Manifest, Observed
from slmops.status.quantizedmodel import quantizedmodel_status
from tests.unit.builders import (
    COMPLETE,
    DATA,
    NOW,
    RUNNING,
    SETTINGS,
    ended,
    figures,
    live,
    pod,
    quantizedmodel,
    report,
    said,
)

RESOURCE = quantizedmodel({
    "variants": [{"name": "int4"}, {"name": "int8", "precision": "INT8"}, {"name": "fp32", "precision": "FP32"}],
    "evaluation": {"data": DATA},
})  # fmt: skip
State = Report | Progress | Manifest | None


def seen(*states: State) -> Observed:
    """A Job each: ended with a report, running and telling how far it is, with a container in a state, without a pod."""
    plan = plan_quantizedmodel(RESOURCE, Observed(), SETTINGS)
    children, pods, progress = [], [], {}
    for job, state in zip((m for m in plan.apply if m["kind"] == "Job"), states, strict=True):
        children.append(live(job, *([COMPLETE] if isinstance(state, Report) else [])))
        if state is None:
            continue
        inside = (
            ended(0, said(state)) if isinstance(state, Report) else RUNNING if isinstance(state, Progress) else state
        )
        pods.append(pod(children[-1], state=inside))
        if isinstance(state, Progress):
            progress[pods[-1]["metadata"]["uid"]] = state
    return Observed(children=tuple(children), pods=tuple(pods), progress=progress)


def status_of(observed: Observed, before: QuantizedModelStatus | None = None) -> QuantizedModelStatus:
    resource = RESOURCE if before is None else RESOURCE.model_copy(update={"status": before})
    plan = plan_quantizedmodel(resource, observed, SETTINGS)
    return quantizedmodel_status(resource, observed, plan, NOW)


def at(share: float, eta: float | None, stage: str = "Converting GPTQ") -> Progress:
    return Progress(stage=stage, unit="Layers", step=5, of=20, part=3, parts=7, job_share=share, job_eta_seconds=eta)


def built(retained: float) -> Report:
    return report("image", evaluation={"model": figures(0.9 * retained), "reference": figures(0.9)})


def test_a_variant_shows_pass_layer_share_and_time_of_its_job() -> None:
    shown = status_of(seen(None, at(0.41, 372), None)).variants[1].progress
    assert shown is not None
    assert (shown.stage, shown.part, shown.done, shown.unit, shown.percent) == (
        "Converting GPTQ",
        "3/7",
        "5/20",
        "Layers",
        25,
    )
    assert (shown.job_percent, shown.job_eta) == (41, "6m12s")


def test_all_of_them_show_the_share_of_all_and_the_longest_time() -> None:
    shown = status_of(seen(built(1), at(0.5, 60), at(0.3, 200))).progress
    assert shown is not None
    assert (shown.job_percent, shown.job_eta, shown.part) == (60, "3m20s", "3/7")


def test_no_time_is_told_while_one_has_not_begun_or_cannot_tell() -> None:
    for other in (None, at(0.01, None)):
        shown = status_of(seen(built(1), at(0.5, 60), other)).progress
        assert shown is not None
        assert (shown.job_percent, shown.job_eta) == (50, None)


def test_a_pod_that_ended_well_is_not_at_its_beginning_again() -> None:
    before = status_of(seen(at(0.9, 9), at(0.5, 60), at(0.3, 200)))
    shown = status_of(seen(ended(0, said(built(1))), at(0.5, 60), at(0.3, 200)), before).progress
    assert shown is not None
    assert shown.job_percent is not None
    assert before.progress is not None
    assert shown.job_percent >= (before.progress.job_percent or 0)


def test_an_image_that_tells_no_course_is_shown_as_before() -> None:
    shown = status_of(seen(Progress(stage="Converting"), None, None))
    assert shown.progress is not None
    assert (shown.progress.stage, shown.progress.part, shown.progress.job_eta) == ("Converting", None, None)
    assert shown.variants[0].progress is not None
    assert shown.variants[0].progress.job_percent is None


def test_sizes_and_what_is_kept_are_one_text_over_all_variants() -> None:
    """Of a path that finds several values the API server prints the first alone."""
    status = status_of(seen(built(1), at(0.5, 60), built(0.95)))
    assert (status.sizes, status.retained) == ("3Mi,-,3Mi", "100%,-,95%")
    assert (status_of(seen(None, None, None)).sizes, status_of(seen(None, None, None)).retained) == (None, None)
    paths = [column.path for column in QuantizedModel.columns if "conditions" not in column.path]
    assert not [path for path in paths if "[*]" in path]
