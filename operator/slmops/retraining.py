"""The annotation that asks a FineTune for one more run of the same spec, and what it says.

A word in an annotation, not a change of the spec: what is in git stays what is in the cluster. Each word is one run. The
FineTune's status remembers the last one, so that who takes the annotation away, as a tool does that replaces the object,
undoes nothing and starts nothing.
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from slmops.api.conditions import moment, timestamp
from slmops.api.finetune import FineTune
from slmops.api.resource import Resource
from slmops.state import Manifest

ANNOTATION_RETRAIN = "slmops.dev/retrain"
LONGEST = 256
"""Characters of the annotation that count: texts of users are bounded before they go anywhere."""
TRACE = re.compile(r"(\S+) EdgeDeployment (\S+) revision (\S+): (.*)", re.DOTALL)


def asked(resource: Resource[Any, Any]) -> str | None:
    """The run that is asked for besides; None where there is none, and for all other kinds."""
    if not isinstance(resource, FineTune):
        return None
    known = resource.status.retrain
    return resource.metadata.annotations.get(ANNOTATION_RETRAIN, "")[:LONGEST] or (known.why if known else None)


@dataclass(frozen=True)
class Trace:
    """A run that an EdgeDeployment asked for."""

    at: str
    deployment: str
    revision: str
    """What was stable then."""
    why: str

    @property
    def text(self) -> str:
        """The annotation."""
        return f"{self.at} EdgeDeployment {self.deployment} revision {self.revision}: {self.why}"


def trace(now: datetime, deployment: str, revision: str, why: str) -> Trace:
    """One that is asked for now."""
    made = Trace(timestamp(now), deployment, revision, "")
    return replace(made, why=why[: LONGEST - len(made.text)])


def last(fine_tune: Manifest) -> tuple[Trace | None, list[datetime]]:
    """Who asked for the last run, if it was an EdgeDeployment, and all that is known of when. Anybody may have written the
    annotation, so that one that cannot be read has the time at which it was seen."""
    known = (fine_tune.get("status") or {}).get("retrain") or {}
    text = word(fine_tune)
    found = TRACE.fullmatch(text)
    times = [moment(found[1] if found else None), moment(known.get("at"))]
    made = Trace(*found.groups()) if found and times[0] is not None else None
    return made, [time for time in times if time is not None]


def word(fine_tune: Manifest) -> str:
    """What ``asked`` says, of a FineTune as the API server has it."""
    known = (fine_tune.get("status") or {}).get("retrain") or {}
    said = (fine_tune["metadata"].get("annotations") or {}).get(ANNOTATION_RETRAIN, "")
    return str(said)[:LONGEST] or str(known.get("why") or "")
