"""What requests were like when a revision became stable: frozen once, in a ConfigMap of the EdgeDeployment, so that neither
a restart nor a lost status forgets it. Status has no room for it: it is some kilobytes a pool."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from slmops.api.conditions import moment, timestamp
from slmops.api.edgedeployment import EdgeDeployment
from slmops.contract import Served
from slmops.state import Manifest, child_labels

ROLE = "baseline"


@dataclass(frozen=True)
class Frozen:
    """The baseline of a pool."""

    at: datetime
    served: Served

    def text(self) -> str:
        """As the ConfigMap has it."""
        content = {"at": timestamp(self.at), "served": self.served.model_dump(mode="json")}
        return json.dumps(content, separators=(",", ":"))


def baseline_name(resource: EdgeDeployment, revision: str) -> str:
    """Name of the ConfigMap."""
    return f"{resource.metadata.name}-{ROLE}-{revision}"


def frozen(resource: EdgeDeployment, revision: str, children: Iterable[Manifest]) -> dict[str, Frozen]:
    """The baselines that are complete, by pool. One that cannot be read, whoever wrote it, is none."""
    name = baseline_name(resource, revision)
    live = next((c for c in children if c.get("kind") == "ConfigMap" and c["metadata"]["name"] == name), {})
    found = {pool: _read(text) for pool, text in (live.get("data") or {}).items()}
    return {pool: known for pool, known in found.items() if known is not None}


def _read(text: str) -> Frozen | None:
    try:
        content = json.loads(text)
        at, served = moment(content["at"]), Served.model_validate(content["served"])
        at = moment(timestamp(at)) if at is not None else None
    except (ValueError, KeyError, TypeError, OverflowError, ValidationError, RecursionError):
        return None
    return Frozen(at, served) if at is not None and served.answers else None


def config_map(resource: EdgeDeployment, revision: str, known: Mapping[str, Frozen]) -> Manifest:
    """The ConfigMap with these baselines."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": baseline_name(resource, revision),
            "namespace": resource.metadata.namespace,
            "labels": child_labels(resource, ROLE),
            "ownerReferences": [resource.owner_reference()],
        },
        "data": {pool: found.text() for pool, found in sorted(known.items())},
    }  # fmt: skip
