"""JSON logs, one line each, that name the resource and the pass they belong to.

The context is a contextvar, so code deep in a pass logs without being told what it works on. Messages are our own
words; what users wrote goes in only where it names a field, and always escaped by the JSON encoder.
"""

import itertools
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

LIMIT = 4096
"""Characters of a message or a trace; what is longer is somebody else's text."""
_context: ContextVar[Mapping[str, str] | None] = ContextVar("log_context", default=None)
_numbers = itertools.count(1)


@contextmanager
def reconcile_context(kind: str, namespace: str, name: str) -> Iterator[str]:
    """Log everything inside with the resource and a new reconcile id."""
    reconcile = f"{next(_numbers):x}"
    token = _context.set({"kind": kind, "namespace": namespace, "name": name, "reconcile": reconcile})
    try:
        yield reconcile
    finally:
        _context.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:LIMIT],
            **(_context.get() or {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)[-LIMIT:]
        # ASCII: what is somebody else's text can neither begin a new line nor move a terminal's cursor.
        return json.dumps(line)


def configure(level: str) -> None:
    """Log to standard error. The libraries' own chatter is kept to warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if level.upper() != "DEBUG":
        logging.getLogger("kopf").setLevel(logging.WARNING)
        # kopf logs each retry of a request as an error, a line a second while the API server is away; Pulse does once
        logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)
