"""``python -m slm_edge /etc/slmops/run.json``: serve until told to stop, then finish what was begun."""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

import uvicorn
from pydantic import ValidationError

from slm_edge.backend import Backend
from slm_edge.engine import Engine
from slm_edge.metrics import Metrics
from slm_edge.server import Server
from slmkit.reporting import write_report
from slmkit.run import EXIT_PERMANENT, RunFailed
from slmops.contract import Reason, Report, ServeRun

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


def backend(run: ServeRun) -> Backend:
    """What answers. Each is imported where it is wanted: the libraries of both would be twice the memory."""
    if run.engine == "FoundryLocal":
        try:
            from slm_edge.foundry import Foundry
        except ImportError as error:
            raise RunFailed(Reason.INVALID_CONFIGURATION, f"spec.runtime.image has no Foundry Local: {error}") from None
        return Foundry()
    from slm_edge.genai import GenAI

    return GenAI()


async def serve(run: ServeRun) -> int:
    """Serve one model. Returns the process's exit code.

    Why a model cannot be served is said where the kubelet finds it, too. One that is not let in ends the server at once: it
    would be refused again, on any node. One that cannot be loaded may be another time, so that is left to the kubelet.
    """
    metrics = Metrics()
    loop = asyncio.get_running_loop()
    code = 0

    def fail(error: Exception) -> None:
        nonlocal code
        if isinstance(error, RunFailed):
            code = EXIT_PERMANENT
            loop.call_soon_threadsafe(drain)
        _tell(error)

    try:
        made = backend(run)
    except RunFailed as error:
        _tell(error)
        return EXIT_PERMANENT
    engine = Engine(
        Path(run.model_path), metrics, made, max_queue=run.max_queue, max_length=run.max_length, adapter=run.adapter,
        defaults=run.defaults, failed=fail,
    )  # fmt: skip
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


def _tell(error: Exception) -> None:
    reason = Reason.OUT_OF_MEMORY if isinstance(error, MemoryError) else Reason.UNSUPPORTED_MODEL
    if isinstance(error, RunFailed):
        reason = error.reason
    logging.error("the model cannot be served: %s", error)
    write_report(Report(outcome="Failed", reason=reason, message=" ".join(str(error).split())[:1024]))


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
