"""``kubectl slm``: what people say of a rollout, in words instead of annotations. ``kubectl-slm`` on the PATH is a plugin.

It asks and writes with kubectl itself: the user's own context, log-in and rights, nothing to configure. What it does not
know goes to kubectl as it is (``--context``, ``-n``).
"""

import argparse
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from slmops.rollout.people import ABORT, APPROVE, PROMOTE, RETRY_FAILED, ROLLBACK
from slmops.state import ANNOTATION_RETRY

Run = Callable[[Sequence[str]], str]
"""kubectl: its arguments in, what it printed out. Raises Refused with what it complained about."""


class Refused(Exception):  # noqa: N818  (what a person sees)
    """It cannot be done; the text says why."""


def main(arguments: Sequence[str] | None = None, run: Run | None = None) -> int:
    """The command line. 0: done; 1: it cannot be done, with a line that says why."""
    parser = argparse.ArgumentParser(prog="kubectl slm", description="Steer the rollouts of EdgeDeployments.",
                                     epilog="Other options, as --context or -n, are kubectl's.")  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, about) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("name", help="the EdgeDeployment")
    commands.choices["rollback"].add_argument(
        "revision", nargs="?", help="one of those that are kept; the latest when absent"
    )
    options, rest = parser.parse_known_args(arguments)
    kubectl = run or _kubectl
    try:
        found = json.loads(kubectl(["get", "edgedeployment", options.name, "-o", "json", *rest]))
        act, _ = COMMANDS[options.command]
        more = [options.revision] if "revision" in options else []
        print(act(found, lambda *command: kubectl([*command, *rest]), *more))
    except Refused as refused:
        print(f"kubectl slm: {refused}", file=sys.stderr)
        return 1
    return 0


def _kubectl(arguments: Sequence[str]) -> str:
    try:
        done = subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused("kubectl is not on the PATH") from None
    if done.returncode:
        raise Refused(done.stderr.strip() or f"kubectl ended with {done.returncode}")
    return done.stdout


Kubectl = Callable[..., str]
COUNTS = ("updated", "ready", "offline", "pressed", "behind", "failed")
"""Nodes of a pool, as far as there are such."""
Manifest = dict[str, Any]


def _status(found: Manifest, kubectl: Kubectl) -> str:
    status, name = found.get("status") or {}, found["metadata"]["name"]
    lines = [f"{name}: {status.get('phase') or 'not seen by the operator yet'}"]
    for role in ("stable", "candidate"):
        if known := status.get(role):
            lines.append(f"  {role:<10} {known['revision']} since {known['since']}")
            lines += [f"             {pool}: {image}" for pool, image in known.get("images", {}).items()]
    if wave := status.get("wave"):
        pulls = f", pulls {wave['pulls']}" if wave.get("pulls") else ""
        lines.append(f"  wave       {wave['name']}, {wave['index']} of {wave['of']}{pulls}")
    if activity := status.get("activity"):
        lines.append(f"  activity   {activity}")
    for pool in status.get("pools") or ():
        nodes = pool["nodes"]
        told = ", ".join(f"{nodes[key]} {key}" for key in COUNTS if nodes.get(key) is not None)
        lines.append(f"  pool       {pool['name']}: {nodes['total']} nodes, {told}")
        lines += [
            f"             {each['name']}: {each['nodes']} nodes, {each['verdict']}" for each in pool.get("classes", ())
        ]
    for choice in status.get("choices") or ():
        speeds = ", ".join(f"{name} {speed}" for name, speed in choice.get("speeds", {}).items())
        lines.append(
            f"  chosen     {choice['pool']}, {choice['hardware']}: {choice['variant']} (tokens/s: {speeds or 'none'})"
        )
    for pool in (status.get("monitoring") or {}).get("pools") or ():
        breaches = "; ".join(f"{b['what']} {b['value']}, max {b['max']}" for b in pool.get("breaches") or ())
        found_so = f"{pool['verdict']}{f': {breaches}' if breaches else ''}"
        lines.append(f"  watched    {pool['name']}: {pool.get('requests', 0)} requests, {found_so}")
    if outcome := status.get("lastOutcome"):
        why = outcome.get("message") or outcome["reason"]
        lines.append(f"  last       {outcome['outcome']} {outcome['revision']} at {outcome['at']}: {why}")
        lines += [f"             evidence: {where}" for where in sorted(set((outcome.get("evidence") or {}).values()))]
    for condition in status.get("conditions") or ():
        if condition["status"] != "True" and condition.get("message"):
            lines.append(f"  {condition['type']}: {condition['reason']}: {condition['message']}")
    return "\n".join(lines)


def _approve(found: Manifest, kubectl: Kubectl) -> str:
    asked = ((found.get("status") or {}).get("wave") or {}).get("approval")
    if not asked:
        raise Refused(f"{found['metadata']['name']} waits for no approval: {_doing(found)}")
    _say(found, kubectl, APPROVE, asked)
    return f"wave {asked.partition('/')[2]} of revision {asked.partition('/')[0]} is approved"


def _promote(found: Manifest, kubectl: Kubectl) -> str:
    name = _candidate(found)
    _say(found, kubectl, PROMOTE, name)
    return f"revision {name} goes to all nodes without soak, window and approval; what fails a gate still fails"


def _abort(found: Manifest, kubectl: Kubectl) -> str:
    name = _candidate(found)
    _say(found, kubectl, ABORT, name)
    return f"revision {name} is given up; its nodes go back to the stable one"


def _rollback(found: Manifest, kubectl: Kubectl, former: str | None) -> str:
    status, name = found.get("status") or {}, found["metadata"]["name"]
    kept = [known["revision"] for known in status.get("history") or ()]
    if not kept or former not in (None, *kept):
        raise Refused(f"{name} has no such revision to go back to; kept are {', '.join(kept) or 'none'}")
    former = former or kept[0]
    _say(found, kubectl, ROLLBACK, f"{_asked(status)}/{former}")
    return f"revision {former} stands for what the spec asks for, until that changes"


def _asked(status: Manifest) -> str:
    """The revision that the spec asks for."""
    outcome, failed = status.get("lastOutcome") or {}, status.get("failed") or ()
    if not status.get("candidate") and status.get("phase") == "Degraded" and outcome.get("revision") in failed:
        return str(outcome["revision"])
    return str((status.get("candidate") or status.get("stable") or {}).get("revision"))


def _retry_failed(found: Manifest, kubectl: Kubectl) -> str:
    stable = (found.get("status") or {}).get("stable") or {}
    if not stable.get("failed") and not stable.get("behind"):
        _candidate(found)
    _say(found, kubectl, RETRY_FAILED, uuid.uuid4().hex[:8])
    return "nodes that failed or are in doubt get another turn"


def _retry(found: Manifest, kubectl: Kubectl) -> str:
    _say(found, kubectl, ANNOTATION_RETRY, uuid.uuid4().hex[:8])
    return "what the spec asks for is tried from the start"


def _pause(found: Manifest, kubectl: Kubectl, paused: bool = True) -> str:
    name = found["metadata"]["name"]
    kubectl("patch", "edgedeployment", name, "--type=merge", "-p", json.dumps({"spec": {"paused": paused}}))
    return "no further node gets its turn" if paused else "it goes on"


def _resume(found: Manifest, kubectl: Kubectl) -> str:
    return _pause(found, kubectl, paused=False)


def _say(found: Manifest, kubectl: Kubectl, annotation: str, text: str) -> None:
    kubectl("annotate", "edgedeployment", found["metadata"]["name"], f"{annotation}={text}", "--overwrite")


def _candidate(found: Manifest) -> str:
    known = (found.get("status") or {}).get("candidate")
    if not known:
        raise Refused(f"{found['metadata']['name']} has no candidate: {_doing(found)}")
    return str(known["revision"])


def _doing(found: Manifest) -> str:
    status = found.get("status") or {}
    return f"it is {status.get('phase') or 'not seen by the operator yet'}"


COMMANDS: dict[str, tuple[Callable[..., str], str]] = {
    "status": (_status, "what runs, what is on trial, and what it waits for"),
    "approve": (_approve, "let the wave begin that waits for it"),
    "promote": (_promote, "give the candidate to all nodes: no soak, no window, no approval, and doubts are accepted"),
    "abort": (_abort, "give the candidate up and go back to the stable revision"),
    "rollback": (_rollback, "have a revision that was promoted before stand for what the spec asks for"),
    "pause": (_pause, "let no further node have its turn"),
    "resume": (_resume, "go on after a pause"),
    "retry": (_retry, "try what the spec asks for from the start, also where it has failed"),
    "retry-failed": (_retry_failed, "give only the nodes that failed or are in doubt another turn"),
}

if __name__ == "__main__":
    sys.exit(main())
