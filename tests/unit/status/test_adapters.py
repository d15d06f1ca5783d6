"""The status of a FineTune of several adapters."""

import json
from typing import Any

from slmops.api.conditions import ConditionType, Fact, false, true, unknown
from slmops.api.finetune import FineTune, FineTuneStatus
from slmops.contract import Learning, Progress, Report
from slmops.plan.finetune import plan_finetune
from slmops.state import LABEL_QUEUE, Manifest, Observed
from slmops.status.adapters import together
from slmops.status.finetune import finetune_status
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
    finetune,
    live,
    pod,
    report,
    said,
    told,
)

C = ConditionType
MEASURED = {"model": figures(0.9), "baseline": figures(0.6)}
GOOD = report("adapter", "layer", "logs", evaluation=MEASURED, inputs={"base": "hf://a/b@1", "train": "oci://x"})
GATES = [{"metric": "ExactMatch", "min": "80%"}]
Outcome = Report | str | Progress
"""What a Job comes to: a report, a failure as it stands in a termination message, or how far it is."""


def several(**spec: Any) -> FineTune:
    adapters = [{"name": name, "data": {"train": DATA}} for name in ("irrigation", "greenhouse")]
    return finetune({"data": None, "adapters": adapters, "parallelism": 2, **spec})


def seen(resource: FineTune, **outcomes: Outcome) -> Observed:
    """All Jobs that the resource gets, come to what ``outcomes`` says of them by adapter (or ``join``)."""
    observed, progress = Observed(), {}
    for _ in range(2):
        plan = plan_finetune(resource, observed, SETTINGS)
        children, pods = [*observed.children], [*observed.pods]
        by_name = {step.name: step.role.removeprefix("train-") for step in plan.steps}
        for manifest in plan.apply:
            outcome = outcomes.get(by_name[manifest["metadata"]["name"]])
            made, state = _come_to(manifest, outcome)
            children.append(made)
            if state is not None and manifest["kind"] == "Job":
                pods.append(pod(made, state=state))
                if isinstance(outcome, Progress):
                    progress[pods[-1]["metadata"]["uid"]] = outcome
        observed = Observed(children=tuple(children), pods=tuple(pods), progress=progress)
    return observed


def _come_to(manifest: Manifest, outcome: Outcome | None) -> tuple[Manifest, Manifest | None]:
    if manifest["kind"] != "Job" or outcome is None:
        return live(manifest), None
    if isinstance(outcome, Report):
        return live(manifest, COMPLETE), ended(0, said(outcome))
    return (live(manifest), RUNNING) if isinstance(outcome, Progress) else (live(manifest, FAILED), ended(3, outcome))


def status_of(resource: FineTune, observed: Observed) -> FineTuneStatus:
    return finetune_status(resource, observed, plan_finetune(resource, observed, SETTINGS), NOW)


def test_each_has_its_figures_and_all_together_an_image() -> None:
    resource = several()
    found = status_of(resource, seen(resource, irrigation=GOOD, greenhouse=GOOD, join=report("image")))
    assert facts(found)["Succeeded"] == ("True", "Completed")
    assert (found.phase, found.ready) == ("Succeeded", "2/2")
    assert found.image is not None
    assert found.image.reference == f"registry.example/slm/image@{DIGEST}"
    assert found.inputs == {"base": "hf://a/b@1"}
    assert (found.adapter, found.artifact, found.evaluation) == (None, None, {})
    irrigation, greenhouse = found.adapters
    assert (irrigation.name, irrigation.phase) == ("irrigation", "Ready")
    assert irrigation.reference == f"registry.example/slm/adapter@{DIGEST}"
    assert irrigation.layer == f"registry.example/slm/layer@{DIGEST}"
    assert (irrigation.size, irrigation.inputs["train"]) == ("3Mi", "oci://x")
    assert irrigation.evaluation["comparison"]["AccuracyRetained"] == 1.5
    assert greenhouse.name == "greenhouse"
    json.dumps(found.dump())


def test_before_anything_is_there_each_has_a_row() -> None:
    resource = several(parallelism=1)
    found = status_of(resource, Observed())
    assert [(row.name, row.phase) for row in found.adapters] == [("irrigation", "Pending"), ("greenhouse", "Pending")]
    assert found.adapters[1].message == "waits for its turn: spec.parallelism is 1"
    assert (found.phase, found.ready) == ("Pending", "0/2")
    assert facts(found)["Trained"] == ("Unknown", "Pending")


def test_the_progress_of_one_that_runs_stands_for_all_and_each_has_its_own() -> None:
    resource = several()
    going = Progress(stage="Training", step=3, of=12)
    found = status_of(resource, seen(resource, irrigation=GOOD, greenhouse=going))
    assert (found.phase, found.ready) == ("Training", "1/2")
    assert found.progress is not None
    assert (found.progress.done, found.progress.percent) == ("3/12", 25)
    assert found.adapters[0].progress is None
    assert found.adapters[1].progress == found.progress
    assert (found.adapters[0].phase, found.adapters[1].phase) == ("Ready", "Training")


def test_one_that_fails_is_named_and_the_other_is_published() -> None:
    resource = several()
    bad = failure("InvalidData", "train.jsonl, line 3: no answer")
    found = status_of(resource, seen(resource, irrigation=GOOD, greenhouse=bad))
    assert (found.phase, found.ready) == ("Failed", "1/2")
    for type in ("Trained", "Succeeded"):
        assert facts(found)[type] == ("False", "InvalidData")
        assert told(found, type).startswith("greenhouse: train.jsonl, line 3: no answer. Mend the named record")
    assert facts(found)["Published"] == ("Unknown", "Pending")
    assert found.image is None
    irrigation, greenhouse = found.adapters
    assert (irrigation.phase, irrigation.reference is not None) == ("Ready", True)
    assert (greenhouse.phase, greenhouse.reference) == ("Failed", None)
    assert greenhouse.message is not None
    assert greenhouse.message.startswith("train.jsonl, line 3: no answer")


def test_gates_of_all_hold_for_each_unless_it_has_its_own() -> None:
    own = {"name": "greenhouse", "data": {"train": DATA}, "gates": [{"metric": "ExactMatch", "min": "95%"}]}
    resource = several(gates=GATES, adapters=[{"name": "irrigation", "data": {"train": DATA}}, own])
    found = status_of(resource, seen(resource, irrigation=GOOD, greenhouse=GOOD, join=report("image")))
    assert facts(found)["Evaluated"] == ("False", "GateFailed")
    assert told(found, "Evaluated").startswith("greenhouse: ExactMatch is 90%, wanted min 95%")
    assert facts(found)["Succeeded"] == ("False", "GateFailed")
    assert [(row.phase, row.gates[0].outcome) for row in found.adapters] == [
        ("Ready", "Passed"),
        ("Rejected", "Failed"),
    ]
    assert found.ready == "1/2"


def test_overfitting_of_one_is_a_warning_that_names_it() -> None:
    resource = several()
    learned = Learning(steps=9, best_step=3, best_eval_loss=0.5, eval_loss=0.9, overfitted=True)
    over = GOOD.model_copy(update={"learning": learned})
    found = status_of(resource, seen(resource, irrigation=GOOD, greenhouse=over, join=report("image")))
    assert facts(found)["Trained"] == ("True", "Overfitting")
    assert told(found, "Trained").startswith("greenhouse: the loss on held-out records was 0.5 after step 3")
    assert facts(found)["Succeeded"] == ("True", "Completed")


def test_a_join_that_fails_says_so_in_published() -> None:
    resource = several()
    bad = failure("RegistryRefused", "denied")
    found = status_of(resource, seen(resource, irrigation=GOOD, greenhouse=GOOD, join=bad))
    assert facts(found)["Published"] == ("False", "RegistryRefused")
    assert found.phase == "Failed"
    assert found.ready == "2/2"


def waiting_in(queue: str, resource: FineTune, first: Manifest | None = None) -> Observed:
    """All Jobs made and held back by their queue, but for the first, whose pod is in this state."""
    plan = plan_finetune(resource, Observed(), SETTINGS)
    children = [live(manifest) for manifest in plan.apply]
    held = [child for child in children if child["kind"] == "Job"]
    assert all(job["metadata"]["labels"][LABEL_QUEUE] == queue and job["spec"]["suspend"] for job in held)
    if first is None:
        return Observed(children=tuple(children))
    held[0]["spec"]["suspend"] = False
    return Observed(children=tuple(children), pods=(pod(held[0], state=first),))


def test_each_that_its_queue_holds_back_is_queued_and_what_all_wait_for_is_said_once() -> None:
    resource = several(run={"queue": "team-a"})
    found = status_of(resource, waiting_in("team-a", resource))
    assert (found.phase, [row.phase for row in found.adapters]) == ("Queued", ["Queued", "Queued"])
    assert facts(found)["Trained"] == ("Unknown", "Queued")
    assert told(found, "Trained").startswith("irrigation, greenhouse: waits in queue team-a until Kueue admits it")
    for row in found.adapters:
        assert row.message is not None
        assert row.message.startswith("waits in queue team-a")


def test_one_that_was_admitted_goes_on_while_another_is_still_queued() -> None:
    resource = several(run={"queue": "team-a"})
    found = status_of(resource, waiting_in("team-a", resource, RUNNING))
    assert (found.phase, [row.phase for row in found.adapters]) == ("Training", ["Running", "Queued"])
    assert told(found, "Trained").startswith("greenhouse: waits in queue team-a")


def test_of_one_that_is_queued_and_one_whose_turn_is_to_come_the_queued_one_stands_for_all() -> None:
    """A new adapter comes first in the list while another has its Job already."""
    resource = several(run={"queue": "team-a"}, parallelism=1)
    new = {"name": "bees", "data": {"train": DATA}}
    more = several(adapters=[new, *resource.spec.model_dump(by_alias=True, exclude_none=True)["adapters"]],
                   run={"queue": "team-a"}, parallelism=1)  # fmt: skip
    found = status_of(more, waiting_in("team-a", resource))
    assert (found.phase, [row.phase for row in found.adapters]) == ("Queued", ["Pending", "Queued", "Pending"])


def test_one_whose_pod_has_ended_is_where_it_was_until_its_job_says_so() -> None:
    resource = several()
    plan = plan_finetune(resource, Observed(), SETTINGS)
    children = [live(manifest) for manifest in plan.apply]
    made = [child for child in children if child["kind"] == "Job"]

    def seen_with(state: Manifest, body: FineTune) -> FineTuneStatus:
        pods = [pod(made[0], state=state), pod(made[1], state=RUNNING)]
        said_by = (
            {} if state is not RUNNING else {pods[0]["metadata"]["uid"]: Progress(stage="Publishing", step=1, of=2)}
        )
        return status_of(body, Observed(children=tuple(children), pods=tuple(pods), progress=said_by))

    before = seen_with(RUNNING, resource)
    assert (before.phase, before.adapters[0].phase) == ("Publishing", "Publishing")
    after = seen_with(ended(0, said(GOOD)), resource.model_copy(update={"status": before}))
    assert after == before
    failed = seen_with(ended(1, failure("DiskFull")), resource.model_copy(update={"status": before}))
    assert (failed.phase, failed.adapters[0].phase, failed.progress) == ("Publishing", "Publishing", None)
    queued = before.model_copy(update={"phase": "Queued", "adapters": [
        before.adapters[0].model_copy(update={"phase": "Queued"}), before.adapters[1]]})  # fmt: skip
    short = seen_with(ended(0, said(GOOD)), resource.model_copy(update={"status": queued}))
    assert (short.phase, short.adapters[0].phase) == ("Training", "Running"), "nobody heard at which stage it was"


def test_the_worst_of_several_facts_goes_first() -> None:
    good, bad, open_ = (
        true(C.TRAINED, "Trained"),
        false(C.TRAINED, "OutOfMemory", "too much"),
        unknown(C.TRAINED, "Running"),
    )
    cases: list[tuple[dict[str, Fact], tuple[str, str, str]]] = [
        ({"a": good, "b": good}, ("True", "Trained", "")),
        ({"a": good, "b": open_}, ("Unknown", "Running", "")),
        ({"a": open_, "b": bad, "c": bad}, ("False", "OutOfMemory", "b, c: too much")),
    ]
    for given, wanted in cases:
        found = together(C.TRAINED, given)
        assert (found.status, found.reason, found.message) == wanted
