"""``python -m slm_edge /etc/slmops/run.json``: serve until told to stop, then finish what was begun."""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

import uvicorn
from pydantic import ValidationError

from slm_edge.engine import Engine
from slm_edge.metrics import Metrics
from slm_edge.server import Server
from slmkit.run import EXIT_PERMANENT, RunFailed, write_report
from slmops.contract import Report, ServeRun

DRAIN_SECONDS = 25


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"time": self.formatTime(record), "level": record.levelname, "message": record.getMessage()})


def main() -> int:
    """Read the configuration and serve."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Json())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if len(sys.argv) != 2:
        logging.error("one argument is expected: the path of the configuration")
        return 2
    try:
        run = ServeRun.model_validate_json(Path(sys.argv[1]).read_bytes())
    except (OSError, ValidationError) as error:
        logging.error("%s cannot be used: %s", sys.argv[1], error)
        return 2
    return asyncio.run(serve(run))


async def serve(run: ServeRun) -> int:
    """Serve one model. Returns the process's exit code: a model that is not let in is no server's fault, so it ends at once
    and says why, where the kubelet finds it."""
    metrics = Metrics()
    loop = asyncio.get_running_loop()
    code = 0

    def refuse(failed: RunFailed) -> None:
        nonlocal code
        code = EXIT_PERMANENT
        logging.error("the model is refused: %s", failed.message)
        write_report(Report(outcome="Failed", reason=failed.reason, message=failed.message[:1024]))
        loop.call_soon_threadsafe(drain)

    engine = Engine(Path(run.model_path), metrics, max_queue=run.max_queue, max_length=run.max_length, refused=refuse)
    server = Server(run, engine, metrics)
    config = uvicorn.Config(
        server.app(), host="0.0.0.0", port=run.port, access_log=False, log_config=None, lifespan="off",  # noqa: S104
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )  # fmt: skip
    http = _Server(config)

    def drain() -> None:
        server.draining = True
        http.should_exit = True

    engine.start()
    logging.info("serving %s revision %s on port %d", run.model_name, run.revision, run.port)
    loop.add_signal_handler(signal.SIGTERM, drain)
    loop.add_signal_handler(signal.SIGINT, drain)
    await http.serve()
    engine.stop()
    return code


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: ours say "not ready" first."""

    def install_signal_handlers(self) -> None:
        """Nothing."""

    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Nothing."""
        from contextlib import nullcontext

        return nullcontext()


if __name__ == "__main__":
    sys.exit(main())
