"""The log of a run: one JSON object a line."""

import json
import logging
import sys


class Lines(logging.Formatter):
    """What was logged, with its extra fields."""

    PLAIN = set(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """A record as JSON."""
        line = {"time": self.formatTime(record), "level": record.levelname, "message": record.getMessage()}
        line |= {key: value for key, value in record.__dict__.items() if key not in self.PLAIN}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_json() -> None:
    """Log that way to standard output from now on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
