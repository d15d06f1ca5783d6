"""What a running pod says of itself: ``GET /progress`` for the operator, ``GET /metrics`` for Prometheus."""

import logging
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from slmops.contract import PROGRESS_PORT, Progress

log = logging.getLogger("slmkit")
GAUGES = {
    "step": "How much of the stage is done, in its unit.",
    "of": "How much the stage is in all; 0 where that is not known.",
    "loss": "Training loss, smoothed.",
    "tokens_per_second": "Throughput.",
    "eta_seconds": "Expected time to the end of the stage.",
    "job_share": "How much of the whole run is done, from 0 to 1, where its stages are known.",
    "job_eta_seconds": "Expected time to the end of the run.",
    "last_checkpoint": "Step of the newest checkpoint.",
    "resumes": "How often the training went on from a checkpoint.",
    "lost_steps": "Steps that were lost with a pod and made again.",
}
"""Fields of ``Progress`` that are numbers."""


def serve(progress: Callable[[], Progress]) -> None:
    """Answer for as long as the process lives. A port that is taken is no reason to end a run."""
    pages: dict[str, tuple[str, Callable[[], str]]] = {
        "/progress": ("application/json", lambda: progress().model_dump_json(exclude_none=True)),
        "/metrics": ("text/plain; version=0.0.4", lambda: metrics(progress())),
    }

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path)
            kind, body = (found[0], found[1]().encode()) if found else ("text/plain", b"")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Polled all the time: not worth a line."""

    port = int(os.environ.get("PROGRESS_PORT", PROGRESS_PORT))
    try:
        server = ThreadingHTTPServer(("0.0.0.0", port), Page)  # noqa: S104  (the operator asks from outside the pod)
    except OSError as error:
        log.warning("no progress page", extra={"error": str(error)})
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()


def metrics(progress: Progress) -> str:
    """The progress as gauges with the stage as label, in Prometheus' text format."""
    labels = f'{{stage="{progress.stage}",unit="{progress.unit}"}}'  # both are plain words, by their pattern
    lines = []
    for field, text in GAUGES.items():
        value = getattr(progress, field)
        if value is not None:
            name = f"slmops_run_{field}"
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name}{labels} {float(value)}"]
    return "\n".join(lines) + "\n"
