"""``kubectl slm``: what it asks of kubectl, and what it says."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from slmops.cli.people import COMMANDS, Refused, main

STATUS: dict[str, Any] = {
    "phase": "Waiting",
    "stable": {"revision": "aaaa1111", "since": "2026-11-01T00:00:00Z", "images": {"farms": "r.example/m@sha256:1"}},
    "candidate": {"revision": "bbbb2222", "since": "2026-11-30T00:00:00Z", "images": {"farms": "r.example/m@sha256:2"}},
    "wave": {"name": "half", "index": 2, "of": 3, "approval": "bbbb2222/half"},
    "pools": [{"name": "farms", "nodes": {"total": 4, "updated": 1, "ready": 4, "offline": 0},
               "classes": [{"name": "amd64-4cpu-8gi", "nodes": 4, "verdict": "Passed"}]}],
    "lastOutcome": {"outcome": "Promoted", "revision": "aaaa1111", "reason": "AllPassed", "at": "2026-11-01T00:00:00Z"},
    "conditions": [
        {"type": "Progressing", "status": "Unknown", "reason": "ApprovalRequired", "message": "wave half needs it"},
        {"type": "Ready", "status": "True", "reason": "Serving", "message": "4 of 4 nodes serve"},
    ],
}  # fmt: skip


class Kubectl:
    """Answers with one object, and remembers what it was asked."""

    def __init__(self, **status: Any) -> None:
        self.found = {"metadata": {"name": "farms"}, "status": STATUS | status}
        self.asked: list[list[str]] = []

    def __call__(self, arguments: Sequence[str]) -> str:
        self.asked.append(list(arguments))
        return json.dumps(self.found) if arguments[0] == "get" else ""


def said(kubectl: Kubectl, *arguments: str) -> list[str]:
    assert main([*arguments, "-n", "edge-ai", "--context", "prod"], kubectl) == 0
    get, *rest = kubectl.asked
    assert get == ["get", "edgedeployment", "farms", "-o", "json", "-n", "edge-ai", "--context", "prod"]
    assert all(each[-4:] == ["-n", "edge-ai", "--context", "prod"] for each in rest)
    return [" ".join(each[:-4]) for each in rest]


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("approve", "annotate edgedeployment farms slmops.dev/approve=bbbb2222/half --overwrite"),
        ("promote", "annotate edgedeployment farms slmops.dev/promote=bbbb2222 --overwrite"),
        ("abort", "annotate edgedeployment farms slmops.dev/abort=bbbb2222 --overwrite"),
        ("pause", 'patch edgedeployment farms --type=merge -p {"spec": {"paused": true}}'),
        ("resume", 'patch edgedeployment farms --type=merge -p {"spec": {"paused": false}}'),
    ],
)
def test_what_is_asked_of_kubectl(command: str, asked: str) -> None:
    assert said(Kubectl(), command, "farms") == [asked]


FORMER = [{"revision": "cccc3333"}, {"revision": "dddd4444"}]
OUTCOME = {"outcome": "RolledBack", "revision": "eeee5555", "reason": "GateFailed", "at": "2026-11-30"}
FAILED = {"phase": "Degraded", "candidate": None, "failed": ["eeee5555"], "lastOutcome": OUTCOME}


@pytest.mark.parametrize(
    ("status", "arguments", "asked"),
    [
        ({"candidate": None}, (), "aaaa1111/cccc3333"),
        ({"candidate": None}, ("dddd4444",), "aaaa1111/dddd4444"),
        ({}, (), "bbbb2222/cccc3333"),
        (FAILED, (), "eeee5555/cccc3333"),
    ],
)
def test_a_former_revision_stands_for_what_the_spec_asks_for(
    status: dict[str, Any], arguments: tuple[str, ...], asked: str
) -> None:
    kubectl = Kubectl(history=FORMER, **status)
    told = f"annotate edgedeployment farms slmops.dev/rollback={asked} --overwrite"
    assert said(kubectl, "rollback", "farms", *arguments) == [told]


@pytest.mark.parametrize("arguments", [("ffff6666",), ()])
def test_only_what_is_kept_can_be_gone_back_to(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    kubectl = Kubectl(history=FORMER if arguments else [])
    assert main(["rollback", "farms", *arguments], kubectl) == 1
    assert "kept are cccc3333, dddd4444" in (told := capsys.readouterr().err) or "kept are none" in told
    assert len(kubectl.asked) == 1


def test_classes_that_failed_can_be_tried_again_when_there_is_no_candidate() -> None:
    stable = STATUS["stable"] | {"failed": {"farms": {"small": "too slow"}}}
    (asked,) = said(Kubectl(candidate=None, stable=stable), "retry-failed", "farms")
    assert "slmops.dev/retry-failed=" in asked


@pytest.mark.parametrize("command", ["retry", "retry-failed"])
def test_each_retry_has_a_word_of_its_own(command: str) -> None:
    words = {said(Kubectl(phase="Paused"), command, "farms")[0] for _ in range(3)}
    assert len(words) == 3
    assert all(word.startswith(f"annotate edgedeployment farms slmops.dev/{command}=") for word in words)


@pytest.mark.parametrize(
    ("command", "status", "told"),
    [
        ("approve", {"wave": None}, "farms waits for no approval: it is Waiting"),
        ("promote", {"candidate": None}, "farms has no candidate: it is Waiting"),
        ("abort", {"candidate": None, "phase": None}, "farms has no candidate: it is not seen by the operator yet"),
        ("retry-failed", {"candidate": None, "phase": "Ready"}, "farms has no candidate: it is Ready"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_written(
    command: str, status: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl = Kubectl(**status)
    assert main([command, "farms"], kubectl) == 1
    assert capsys.readouterr().err == f"kubectl slm: {told}\n"
    assert len(kubectl.asked) == 1


def test_what_kubectl_complains_about_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    def refuses(arguments: Sequence[str]) -> str:
        raise Refused('edgedeployments.slmops.dev "farms" not found')

    assert main(["status", "farms"], refuses) == 1
    assert capsys.readouterr().err == 'kubectl slm: edgedeployments.slmops.dev "farms" not found\n'


def test_the_status_reads_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    said(Kubectl(), "status", "farms")
    assert (
        capsys.readouterr().out
        == """\
farms: Waiting
  stable     aaaa1111 since 2026-11-01T00:00:00Z
             farms: r.example/m@sha256:1
  candidate  bbbb2222 since 2026-11-30T00:00:00Z
             farms: r.example/m@sha256:2
  wave       half, 2 of 3
  pool       farms: 4 nodes, 1 updated, 4 ready, 0 offline
             amd64-4cpu-8gi: 4 nodes, Passed
  last       Promoted aaaa1111 at 2026-11-01T00:00:00Z: AllPassed
  Progressing: ApprovalRequired: wave half needs it
"""
    )


def test_the_status_has_what_was_chosen_watched_and_proven(capsys: pytest.CaptureFixture[str]) -> None:
    choice = {
        "pool": "farms",
        "hardware": "big",
        "variant": "int8",
        "image": "r/m@1",
        "speeds": {"int4": 25, "int8": 30},
    }
    breach = {"what": "ErrorRate", "value": 0.2, "max": 0.05}
    watched = [{"name": "farms", "verdict": "Breached", "requests": 240, "breaches": [breach]},
               {"name": "barns", "verdict": "TooFewRequests", "requests": 3}]  # fmt: skip
    wave = {"name": "half", "index": 2, "of": 3, "pulls": "1.5Gi"}
    outcome = {"outcome": "Promoted", "revision": "aaaa1111", "reason": "AllNodesPassed", "at": "2026-11-01T00:00:00Z",
               "evidence": {"farms": "r.example/m@sha256:9"}}  # fmt: skip
    said(Kubectl(choices=[choice], monitoring={"pools": watched}, wave=wave, lastOutcome=outcome), "status", "farms")
    out = capsys.readouterr().out
    for line in ("  wave       half, 2 of 3, pulls 1.5Gi\n",
                 "  chosen     farms, big: int8 (tokens/s: int4 25, int8 30)\n",
                 "  watched    farms: 240 requests, Breached: ErrorRate 0.2, max 0.05\n",
                 "  watched    barns: 3 requests, TooFewRequests\n",
                 "             evidence: r.example/m@sha256:9\n"):  # fmt: skip
        assert line in out


def test_a_resource_that_nobody_has_looked_at_has_a_status_too(capsys: pytest.CaptureFixture[str]) -> None:
    kubectl = Kubectl()
    del kubectl.found["status"]
    assert main(["status", "farms"], kubectl) == 0
    assert capsys.readouterr().out == "farms: not seen by the operator yet\n"


def test_every_command_is_in_the_docs() -> None:
    from pathlib import Path

    page = (Path(__file__).parents[3] / "docs" / "rollouts.md").read_text()
    assert [name for name in COMMANDS if f"`kubectl slm {name}" not in page] == []
