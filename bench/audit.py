"""Who wrote what, as the API server's audit log has it: the only witness that neither operator can talk into anything."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.api import AGENT

WRITES = {"create", "update", "patch", "delete", "deletecollection"}
LEASES = "leases"
"""Renewing the leader's Lease every two seconds is no work on a resource; left out of every count and said so."""


@dataclass(frozen=True)
class Write:
    """One request that changes something, also when it was refused."""

    at: float
    """Seconds since the epoch."""
    agent: str
    verb: str
    resource: str
    """Plural, with the subresource: finetunes/status."""
    code: int = 200
    """What the API server answered."""


def writes(log: Path, namespace: str, agents: Sequence[str], since: float) -> list[Write]:
    """The writes of clients with these user agents in a namespace, oldest first; none of the bench's own."""
    found = []
    for file in sorted(log.parent.glob(f"{log.stem}*{log.suffix}")):
        if file.stat().st_mtime >= since:
            with file.open(encoding="utf-8", errors="replace") as lines:
                found += [write for line in lines if (write := _write(line, namespace, agents)) and write.at >= since]
    return sorted(found, key=lambda write: write.at)


def by_resource(found: Iterable[Write]) -> dict[str, int]:
    """Counts by "verb resource"; those that were refused by their answer besides."""
    return dict(Counter(_called(write) for write in found).most_common())


def _called(write: Write) -> str:
    refused = f", refused with {write.code}" if write.code >= 400 else ""
    return f"{write.verb} {write.resource}{refused}"


def _write(line: str, namespace: str, agents: Sequence[str]) -> Write | None:
    if f'"namespace":"{namespace}"' not in line:
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None  # the line that is being written right now
    about = event.get("objectRef") or {}
    agent = event.get("userAgent") or ""
    if (
        event.get("stage") != "ResponseComplete"
        or event.get("verb") not in WRITES
        or about.get("namespace") != namespace
        or about.get("resource") == LEASES
        or not agent.startswith(tuple(agents))
        or agent.startswith(AGENT)
    ):
        return None
    resource = "/".join(part for part in (about.get("resource"), about.get("subresource")) if part)
    at = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
    return Write(at, agent, event["verb"], resource, (event.get("responseStatus") or {}).get("code", 200))
