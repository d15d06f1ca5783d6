"""Each step of a node's turn, read from what lies on the cluster."""

from datetime import timedelta
from typing import Any

import pytest

from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.benches import Benches, bench
from slmops.rollout.children import admitted, job_name, set_name
from slmops.rollout.pods import Servers, node_of
from slmops.rollout.turns import Asked, Trial, Turn, turn
from slmops.state import Manifest, Observed
from tests.unit.fleet_builders import (
    NOW,
    at,
    benched,
    deployment,
    figures,
    job,
    measured,
    node,
    parsed,
    pod,
    pulled,
    revision,
    servers,
    target,
)

STABLE, CANDIDATE = measured("a"), measured("b")
A, B = servers(STABLE)[1], servers(CANDIDATE, track="candidate", only=["n"])[1]
GOOD, BAD = figures(target(), target()), figures(target((10, 10, 10)), target())
HERE = node("n", hardware="small")


def _turn(*found: Manifest, resource: EdgeDeployment = CANDIDATE, on: Manifest = HERE, proven: tuple[str, ...] = (),
          stable: bool = True, minutes: float = 0, trusted: bool = False) -> Turn:  # fmt: skip
    """The turn of a node where all this is found, some minutes from now."""
    children = [*servers(STABLE)] if stable else []
    observed = Observed(
        children=(*children, B, *(m for m in found if m["kind"] == "Job")),
        pods=tuple(m for m in found if m["kind"] == "Pod"),
        nodes=(on,),
    )
    trial = Trial(
        resource, observed, Servers.of(observed), Benches(resource, observed), resource.spec.pools[0],
        Asked(revision(resource).name, trusted=trusted), {"n": revision(STABLE).name} if stable else {}, admitted(B), None,
        NOW + timedelta(minutes=minutes),
    )  # fmt: skip
    return turn(trial, parsed(on), proven)


PULLED = pulled(CANDIDATE, HERE)
OLD = pod(A, "n")
UP = pod(B, "n", ready=False, containers=True)
OPEN = pod(B, "n", gate=True)


@pytest.mark.parametrize(
    ("found", "step"),
    [
        ((OLD,), "Waiting"),
        ((OLD, job(CANDIDATE, "pull", HERE)), "Pulling"),
        ((OLD, PULLED), "Starting"),
        ((OLD, PULLED, pod(B, "n", ready=False)), "Starting"),
        ((OLD, PULLED, pod(B, "n", ready=False, bound=False, phase="Pending")), "Starting"),
        ((OLD, PULLED, UP), "Measuring"),
        ((OLD, PULLED, UP, job(CANDIDATE, "bench", HERE)), "Measuring"),
        ((OLD, PULLED, UP, benched(CANDIDATE, HERE, GOOD)), "Passed"),
        ((OLD, PULLED, pod(B, "n", ready=False, containers=True, gate=True)), "Passed"),
        ((OLD, PULLED, OPEN), "Serving"),
        ((OLD, PULLED, UP, benched(CANDIDATE, HERE, BAD)), "Failed"),
        ((OLD, PULLED, UP, benched(CANDIDATE, HERE, figures(target((5, 30, 60)), target()))), "Inconclusive"),
        ((OLD, PULLED, UP, job(CANDIDATE, "bench", HERE, state="Failed")), "Inconclusive"),
        ((OLD, job(CANDIDATE, "pull", HERE, state="Failed")), "Failed"),
        ((OLD, PULLED, pod(B, "n", ready=False, restarts=3)), "Failed"),
        ((OLD, PULLED, pod(B, "n", ready=False, restarts=2)), "Starting"),
    ],
)
def test_the_step_is_read_from_what_is_there(found: tuple[Manifest, ...], step: str) -> None:
    assert _turn(*found).step == step


def test_a_pod_that_is_going_away_or_has_ended_is_none() -> None:
    for gone in (pod(B, "n", deleting=True), pod(B, "n", phase="Failed"), pod(B, "n", phase="Succeeded")):
        assert _turn(OLD, PULLED, gone).step == "Starting"
        assert _turn(OLD, gone).pod is None


REFUSED = '{"outcome": "Failed", "reason": "UnsafeSource", "message": "model.onnx: operator x.Y"}'


@pytest.mark.parametrize("where", ["state", "lastState"])
def test_a_server_that_refuses_its_model_fails_the_candidate_at_once_and_says_why(where: str) -> None:
    refusing = pod(B, "n", ready=False, ended={"reason": "Error", "exitCode": 3, "message": REFUSED})
    if where == "state":
        (container,) = refusing["status"]["containerStatuses"]
        container["state"], container["lastState"] = container["lastState"], {}
    failed = _turn(OLD, PULLED, refusing)
    assert (failed.step, failed.reason) == ("Failed", "UnsafeSource")
    assert failed.message == "the server refuses the model image: model.onnx: operator x.Y"


@pytest.mark.parametrize(
    "ended",
    [{"exitCode": 3, "message": "no report"}, {"exitCode": 3}, {"exitCode": 1, "message": REFUSED},
     {"exitCode": 3, "message": '{"outcome": "Succeeded"}'}, {"exitCode": 137, "reason": "OOMKilled"}],
)  # fmt: skip
def test_a_server_that_ended_for_another_cause_may_be_the_nodes_fault(ended: Manifest) -> None:
    assert _turn(OLD, PULLED, pod(B, "n", ready=False, ended=ended)).step == "Starting"
    crashed = _turn(OLD, PULLED, pod(B, "n", ready=False, ended=ended, restarts=3))
    assert (crashed.step, crashed.reason) == ("Failed", "CandidateCrashed")


def test_a_server_that_could_not_load_its_model_says_what_the_runtime_said() -> None:
    said = '{"outcome": "Failed", "reason": "UnsupportedModel", "message": "Unsupported model IR version: 99"}'
    ended = {"exitCode": 0, "reason": "Completed", "message": said}
    crashed = _turn(OLD, PULLED, pod(B, "n", ready=False, ended=ended, restarts=3))
    assert crashed.message == (
        "the server was restarted 3 times: Completed, exit code 0: Unsupported model IR version: 99"
    )


def test_pods_of_other_nodes_pools_and_revisions_do_not_count() -> None:
    barns = servers(measured("b", pools=("farms", "barns")), track="candidate", pool="barns")[1]
    assert _turn(pod(B, "other"), pod(barns, "n"), OLD).pod is None
    assert _turn(OLD, OPEN).stable_pod == OLD
    assert _turn(OLD, OPEN).pod == OPEN


def test_a_pod_that_is_not_scheduled_yet_is_found_by_the_node_that_it_is_meant_for() -> None:
    assert node_of(pod(B, "n", bound=False)) == "n"
    assert node_of({"spec": {}}) is None
    assert node_of({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": []}]}}}}}) is None  # fmt: skip


# --- verdicts


def test_a_failed_verdict_tells_what_was_measured_and_outlives_the_pod() -> None:
    """Else a pass that was cut off after the pod's removal would try the failed candidate again."""
    for found in ((OLD, PULLED, UP), (OLD, PULLED), (OLD,)):
        failed = _turn(*found, benched(CANDIDATE, HERE, BAD))
        assert (failed.step, failed.reason) == ("Failed", "GateFailed")
        assert "TokensPerSecond is 10, wanted min 20" in failed.message
        assert "ErrorRate" not in failed.message, "that one passed"


def test_a_benchmark_that_failed_itself_says_nothing_of_the_candidate() -> None:
    doubt = _turn(OLD, UP, job(CANDIDATE, "bench", HERE, state="Failed", reason="DeadlineExceeded"))
    assert (doubt.step, doubt.reason) == ("Inconclusive", "BenchmarkFailed")
    assert "the benchmark itself failed" in doubt.message


def test_a_job_that_ran_too_long_names_the_field_that_limits_it() -> None:
    """The Job's own message speaks of a field that an EdgeDeployment does not have."""
    for role, found in (("pull", (OLD,)), ("bench", (OLD, PULLED, UP))):
        ended = _turn(*found, job(CANDIDATE, role, HERE, state="Failed", reason="DeadlineExceeded"))
        assert "progressDeadline 30m" in ended.message
        assert "spec.run" not in ended.message


def test_a_benchmark_without_any_answer_is_a_doubt_that_says_so() -> None:
    without_gates = measured("b", gates=[])
    doubt = _turn(OLD, UP, benched(without_gates, HERE, figures(target((), errors=60))), resource=without_gates)
    assert (doubt.step, doubt.message) == ("Inconclusive", "nothing was measured")


NO_MATCH = "no match for platform in manifest: not found"
FULL = f"failed to pull and unpack image {'x' * 400}: mkdir /ingest: no space left on device"


@pytest.mark.parametrize(
    ("words", "told", "cause"), [(NO_MATCH, NO_MATCH, "Registry"), (FULL, f"{FULL[:160]} … {FULL[-237:]}", "Node")]
)
def test_an_image_that_does_not_come_fails_in_the_kubelets_words(words: str, told: str, cause: str) -> None:
    pulling = job(CANDIDATE, "pull", HERE)
    pending: Manifest = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": "p", "namespace": "edge-ai", "uid": "p", "creationTimestamp": at(-5), "labels": {},
            "ownerReferences": [{"kind": "Job", "uid": pulling["metadata"]["uid"], "controller": True}]},
        "spec": {"nodeName": "n"}, "status": {"phase": "Pending", "containerStatuses": [
            {"name": "run", "image": "r.example/m", "state": {"waiting": {"reason": "ErrImagePull", "message": words}}}]},
    }  # fmt: skip
    waiting = _turn(OLD, pulling, pending)
    assert (waiting.step, waiting.message) == ("Pulling", f"image r.example/m cannot be pulled: {told}")
    late = _turn(OLD, pulling, pending, minutes=31)
    assert (late.step, late.reason, late.cause) == ("Failed", "ProgressDeadlineExceeded", cause)
    assert told in late.message


def test_a_class_that_has_passed_is_not_measured_again() -> None:
    assert _turn(OLD, PULLED, UP, proven=("small",)).step == "Passed"
    assert _turn(OLD, PULLED, UP, proven=("big",)).step == "Measuring"


def test_without_a_benchmark_a_ready_server_is_enough() -> None:
    plain = deployment("b")
    up = pod(servers(plain, track="candidate", only=["n"])[1], "n", ready=False, containers=True)
    assert _turn(OLD, up, resource=plain).step == "Passed"


def test_gates_that_are_tightened_meanwhile_judge_what_was_measured_before() -> None:
    stricter = measured("b", gates=[{"metric": "TokensPerSecond", "min": 31}])
    assert _turn(OLD, OPEN, benched(CANDIDATE, HERE, GOOD), resource=stricter).step == "Failed"


def test_a_node_that_came_back_as_other_hardware_is_measured_as_such() -> None:
    """Same name, other machine: the old benchmark proves nothing for the new class."""
    before, after = HERE, node("n", hardware="big")
    observed = Observed(children=(benched(CANDIDATE, before, GOOD),))
    name = revision(CANDIDATE).name
    assert bench(CANDIDATE, observed, "farms", name, parsed(before)) is not None
    assert bench(CANDIDATE, observed, "farms", name, parsed(after)) is None
    assert _turn(OLD, PULLED, UP, benched(CANDIDATE, before, GOOD), on=after).step == "Measuring"


@pytest.mark.parametrize(
    ("old", "step"),
    [
        ((), "Starting"),
        ((pod(A, "n", ready=False),), "Starting"),
        ((OLD,), "Measuring"),
    ],
)
def test_a_comparison_waits_for_the_stable_server(old: tuple[Manifest, ...], step: str) -> None:
    waiting = _turn(*old, PULLED, UP)
    assert waiting.step == step
    assert ("stable server on this node is not ready" in waiting.message) == (step == "Starting")


def test_a_comparison_that_cannot_be_made_is_a_doubt_and_never_a_pass() -> None:
    broken = pod(A, "n", ready=False, restarts=9)
    doubt = _turn(broken, PULLED, UP, minutes=31)
    assert (doubt.step, doubt.reason) == ("Inconclusive", "NothingToCompare")


def test_a_broken_stable_server_does_not_keep_a_candidate_from_being_measured_alone() -> None:
    """Where no gate compares. It may be the very cause for the rollout."""
    alone = measured("b", gates=[{"metric": "TokensPerSecond", "min": 20}])
    assert _turn(pod(A, "n", ready=False), PULLED, UP, resource=alone).step == "Measuring"
    assert _turn(PULLED, UP, stable=False).step == "Measuring", "the first revision of all"


# --- deadlines


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ((OLD, job(CANDIDATE, "pull", HERE)), "starting (an exhausted quota"),
        ((OLD, pulled(CANDIDATE, HERE, ended=-1)), "the DaemonSet makes no pod here"),
        ((OLD, PULLED, pod(B, "n", ready=False)), "the server does not get ready"),
        ((OLD, PULLED, pod(B, "n", ready=False, containers=False, gate=True)), "the server is not ready any more"),
    ],
)
def test_what_takes_longer_than_the_deadline_fails_instead_of_waiting_for_ever(
    found: tuple[Manifest, ...], words: str
) -> None:
    assert _turn(*found, minutes=24).step != "Failed"
    late = _turn(*found, minutes=40)
    assert (late.step, late.reason) == ("Failed", "ProgressDeadlineExceeded")
    assert "progressDeadline 30m" in late.message
    assert words in late.message


def test_a_server_that_has_served_for_long_may_be_unready_for_a_moment() -> None:
    blink = pod(B, "n", ready=False, containers=False, gate=True, created=-10_000, since=-1)
    assert _turn(OLD, blink).step == "Passed"
    waiting = pod(B, "n", ready=False, created=-10_000, since=-1)
    assert _turn(OLD, waiting).step == "Starting"


def test_a_node_whose_pod_nobody_asked_for_yet_is_not_late() -> None:
    """Its pull is long done, and others have their turn."""
    elsewhere = node("m", hardware="small")
    assert "m" not in admitted(B)
    assert _turn(pulled(CANDIDATE, elsewhere, ended=-1), on=elsewhere, minutes=40).step == "Starting"


@pytest.mark.parametrize(
    "found",
    [
        (OLD, job(CANDIDATE, "pull", HERE)),
        (OLD, pulled(CANDIDATE, HERE, ended=-1)),
        (OLD, PULLED, pod(B, "n", ready=False)),
        (OLD, PULLED, pod(B, "n", ready=False, containers=False, gate=True)),
    ],
)
def test_time_in_which_the_node_was_away_does_not_count(found: tuple[Manifest, ...]) -> None:
    back = node("n", hardware="small", since=39)
    assert _turn(*found, minutes=40).step == "Failed"
    assert _turn(*found, minutes=40, on=back).step != "Failed"
    assert _turn(*found, minutes=75, on=back).step == "Failed"


@pytest.mark.parametrize("reason", ["DeadlineExceeded", "BackoffLimitExceeded"])
def test_a_job_that_failed_while_its_node_was_away_is_done_again(reason: str) -> None:
    back = node("n", hardware="small", since=-1)
    lost: dict[str, Any] = {"state": "Failed", "reason": reason, "created": -40, "ended": -10}
    assert _turn(OLD, job(CANDIDATE, "pull", back, **lost), on=back).step == "Waiting"
    assert _turn(OLD, PULLED, UP, job(CANDIDATE, "bench", back, **lost), on=back).step == "Measuring"
    there = node("n", hardware="small", since=-60)
    assert _turn(OLD, job(CANDIDATE, "pull", there, **lost), on=there).step == "Failed"
    assert _turn(OLD, PULLED, UP, job(CANDIDATE, "bench", there, **lost), on=there).step == "Inconclusive"


def test_what_was_measured_before_the_node_went_away_still_counts() -> None:
    back = node("n", hardware="small", since=-1)
    assert _turn(OLD, PULLED, UP, benched(CANDIDATE, back, GOOD, created=-40), on=back).step == "Passed"
    assert _turn(OLD, PULLED, UP, benched(CANDIDATE, back, BAD, created=-40), on=back).step == "Failed"


# --- names


def test_names_fit_and_tell_everything_apart() -> None:
    long = measured("a", pools=("p" * 40, "p" * 39 + "q"))
    object.__setattr__(long.metadata, "name", "x" * 40)
    ours = [set_name(long, pool.name, name) for pool in long.spec.pools for name in ("one", "two")]
    jobs = [
        job_name(long, role, pool, name, parsed(node(host)))
        for role in ("pull", "bench") for pool in ("p", "q") for name in ("one", "two") for host in ("m", "n")
    ]  # fmt: skip
    assert len(set(ours + jobs)) == len(ours) + len(jobs)
    assert max(len(name) for name in ours + jobs) <= 63
    assert set_name(deployment(pools=("barn-number-1",)), "barn-number-1", "r").startswith("chat-barn-number-")
