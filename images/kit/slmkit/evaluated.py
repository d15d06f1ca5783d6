"""How good something published is: all figures of all models that were measured with it, as a document that refers to it.

Gates are no part of it: whether these figures are good enough is decided by whoever reads them. Times and memory are in
it, which differ from run to run, and so it lies beside the artefact and not in it.
"""

import json
from datetime import datetime
from typing import Any

from slmkit.facts import Facts
from slmops.contract import Artifact

MEDIA_TYPE = "application/vnd.slmops.evaluation.v1+json"
PREDICATE = "https://slmops.dev/evaluation/v1"
"""The same document as the predicate of a statement, once it is signed."""
DATA = ("evaluation", "validation", "train", "baseTask")
"""Inputs that figures may come from."""


def report(made: Artifact, facts: Facts, when: datetime) -> bytes:
    """The document, as JSON. ``models`` has a report's ``Figures`` by role, as they were measured: shares from 0 to 1,
    seconds, bytes, and 95 % confidence intervals by metric."""
    name, _, digest = made.reference.partition("@")
    asked = facts.configuration.get("evaluation")
    found: dict[str, Any] = {
        "mediaType": MEDIA_TYPE,
        "subject": {"name": name, "digest": digest},
        "measuredAt": when.isoformat(),
        "measuredBy": {"run": facts.run.run, "image": facts.run.image},
        "requestedBy": dict(sorted(facts.run.annotations.items())),
        "configuration": asked if isinstance(asked, dict) else {},
        "data": {role: facts.inputs[role] for role in DATA if role in facts.inputs},
        "models": {role: figures.model_dump(mode="json", exclude_none=True) for role, figures in facts.figures.items()},
    }
    return json.dumps(found, sort_keys=True).encode()
