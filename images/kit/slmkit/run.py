"""How a run begins and ends: configuration in, progress while it lasts, a report out.

Exit codes: 0 succeeded; 3 failed for a reason that another attempt cannot mend (the Job's podFailurePolicy stops there);
143 told to stop (not counted as an attempt); 1 failed, another attempt may succeed.
"""

import logging
import os
import pkgutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from slmkit import peers
from slmkit.budget import Guard
from slmkit.course import Course
from slmkit.full import full, told
from slmkit.lines import log_json
from slmkit.memory import ran_out
from slmkit.page import serve
from slmkit.reporting import bounded, failed, write_report
from slmkit.stop import EXIT_TERMINATED, leave_in_time
from slmops.contract import (
    GRACE_SECONDS,
    GRACE_SECONDS_WITH_VOLUME,
    STATE_DIR,
    WORK_DIR,
    AnyRun,
    Progress,
    Reason,
    Report,
    Run,
)

log = logging.getLogger("slmkit")
PERMANENT = {
    Reason.INVALID_CONFIGURATION, Reason.INVALID_DATA, Reason.UNSAFE_SOURCE, Reason.UNSUPPORTED_MODEL,
    Reason.VERIFICATION_FAILED, Reason.CONVERSION_FAILED, Reason.SOURCE_NOT_FOUND, Reason.SOURCE_UNAUTHORIZED,
    Reason.REGISTRY_REFUSED, Reason.TOO_FEW_ANSWERS, Reason.TRAINING_DIVERGED, Reason.ADAPTER_UNUSABLE,
    Reason.ADAPTER_MISMATCH, Reason.INVALID_TEMPLATE, Reason.VOCABULARY_MISMATCH, Reason.LAYER_NOT_FOUND,
    Reason.BUDGET_EXCEEDED, Reason.EGRESS_REFUSED, Reason.LICENSE_REFUSED, Reason.KEY_UNUSABLE,
    Reason.SIGNATURE_MISSING, Reason.SIGNATURE_INVALID, Reason.PROVENANCE_MISSING, Reason.BACKEND_UNAVAILABLE,
}  # fmt: skip
EXIT_PERMANENT = 3
MARGIN = 5.0
"""Seconds before the kubelet would kill it that a run which was told to stop ends by itself."""
UNITS = {
    "Fetching": "Bytes",
    "Publishing": "Bytes",
    "Evaluating": "Samples",
    "Labelling": "Records",
    "Reading": "Files",
    "Pruning": "Layers",
    "Converting": "Layers",
}
"""What is counted in a stage, by its first word; steps in all others."""
SHORT = ("Bytes", "Samples")
"""Units of stages that no budget is estimated by: they are over before that would help."""
T = TypeVar("T")
Handler = Callable[[Any, "Context"], Report] | str
"""What does a run: a function, or where it is (``module:function``), so that a run loads only the libraries it needs."""


class RunFailed(Exception):  # noqa: N818  (it is how a run ends, not always an error of the program)
    """The run cannot go on. The message names what is wrong for the person who wrote the resource."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Context:
    """What a run tells while it lasts, and what it is told."""

    def __init__(
        self, work: Path | None = None, clock: Callable[[], float] = time.monotonic, state: Path | None = None
    ) -> None:
        self.work = work or Path(os.environ.get("WORK_DIR", WORK_DIR))
        self.state = _state(state or Path(os.environ.get("STATE_DIR", STATE_DIR)), self.work)
        """Where to keep what the next attempt may go on from. It outlives the pod only where ``run.volume`` asks so."""
        self.stopping = threading.Event()
        """Set on SIGTERM: end soon, with what there is."""
        self.inputs: dict[str, str] = {}
        """What each source was resolved to."""
        self.guard: Guard | None = None
        """Set where the run has a budget."""
        self.course: Course | None = None
        """Set where the run knows its stages beforehand."""
        self._clock = clock
        self.started = clock()
        self.began = datetime.now(UTC)
        self._stage_started = clock()
        self._stage_from = 0
        self._progress = Progress(stage="Starting")
        self._lock = threading.Lock()

    @property
    def volume(self) -> Path | None:
        """The volume of ``run.volume``; None where nothing outlives the pod."""
        return None if self.state.is_relative_to(self.work) else self.state

    def stage(self, name: str, of: int = 0, done: int = 0) -> None:
        """Begin a stage of ``of`` units (0: unknown), of which another attempt has done ``done``. Raises RunFailed when the
        pod is being taken away."""
        self.check()
        log.info("stage", extra={"stage": name, "of": of})
        with self._lock:
            self._stage_started, self._stage_from = self._clock(), done
            unit = UNITS.get(name.partition(" ")[0], "Steps")
            plain = {"step": done, "of": of, "unit": unit, "loss": None, "tokens_per_second": None, "eta_seconds": None}
            self._say({"stage": name} | plain)

    def step(self, number: int, loss: float | None = None, tokens_per_second: float | None = None) -> None:
        """``number`` units of the stage are done. Does not look whether to stop: a training keeps its step first, and
        whoever labels lets answers come in that are paid for."""
        with self._lock:
            now = self._progress
            here = number - self._stage_from
            elapsed = self._clock() - self._stage_started
            eta = elapsed / here * (now.of - number) if here > 0 and now.of >= number else None
            changed: dict[str, Any] = {"step": number, "loss": loss, "tokens_per_second": tokens_per_second}
            if now.stage == "Training" and now.first_step_at is None:
                changed["first_step_at"] = round(time.time(), 1)
            self._say({"eta_seconds": eta} | changed)
        elapsed = self._clock() - self.started
        said = self.guard.step(now.stage, number, now.of, elapsed) if self.guard and now.unit not in SHORT else ""
        if said:
            raise RunFailed(Reason.BUDGET_EXCEEDED, said)

    def expect(self, more: int) -> None:
        """The stage has grown: so many units more are to be done."""
        with self._lock:
            self._say({"of": self._progress.of + more})

    def _say(self, changed: Mapping[str, Any]) -> None:
        """The progress with these changes, and where that is on the run's course. Whoever calls holds the lock."""
        now = self._progress.model_copy(update=changed)
        done = now.step / now.of if now.of else 0.0
        place = self.course.place(now.stage, done, self._clock() - self.started) if self.course else None
        if place is not None:
            now = now.model_copy(update={"part": place.part, "parts": place.parts, "job_share": place.share,
                                         "job_eta_seconds": place.eta_seconds})  # fmt: skip
        self._progress = now

    def advance(self, count: int) -> None:
        """So many units more of the stage are done, of those that nobody has to keep (bytes that come or go). Raises
        RunFailed when the pod is being taken away."""
        self.check()
        self.step(self.progress.step + count)

    def kept(self, checkpoint: int | None, resumes: int, lost: int) -> None:
        """Where the training would go on from, how often it did, and how many steps that has cost."""
        with self._lock:
            changed = {"last_checkpoint": checkpoint, "resumes": resumes, "lost_steps": lost}
            self._progress = self._progress.model_copy(update=changed)

    def check(self) -> None:
        """Raise when the pod is being taken away."""
        if self.stopping.is_set():
            raise RunFailed(Reason.TERMINATED, "the pod was told to stop")

    def going(self, items: Iterable[T]) -> Iterator[T]:
        """The items, as long as nobody takes the pod away. Raises RunFailed then."""
        for item in items:
            self.check()
            yield item

    def lineage(self, run: Run) -> dict[str, str]:
        """Annotations of what the run publishes: who asked for it, and the digests of what it is made from."""
        made_from = {f"slmops.dev/input.{role}": uri for role, uri in sorted(self.inputs.items())}
        licences = {f"slmops.dev/license.{role}": found for role, found in sorted(self.licenses.items())}
        # What is made from a model stands under its licence, whatever else is said of it.
        whole = self.licenses.get("base")
        return (
            dict(run.annotations)
            | made_from
            | licences
            | ({"org.opencontainers.image.licenses": whole} if whole else {})
        )

    @property
    def licenses(self) -> dict[str, str]:
        """The licences of the models among the inputs, as SPDX expressions, as far as they are known."""
        from slmkit.licences import seen  # it needs RunFailed of this module

        found = {role: seen[address] for role, address in self.inputs.items() if address in seen}
        return {role: licence.expression for role, licence in found.items() if licence.expression}

    @property
    def verified(self) -> dict[str, str]:
        """Fingerprints of the keys that inputs were found to be signed with, by role."""
        from slmkit.trust import seen  # it needs RunFailed of this module

        return {role: seen[address] for role, address in self.inputs.items() if address in seen}

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        with self._lock:
            return self._progress


def _state(volume: Path, work: Path) -> Path:
    """The volume where there is one that can be written to, else a folder of the pod's own."""
    if os.access(volume, os.W_OK | os.X_OK):
        return volume
    if volume.is_dir():
        log.warning("the volume cannot be written to; its storage class knows no fsGroup", extra={"path": str(volume)})
    return work / "state"


def main(handlers: Mapping[type[Any], Handler], arguments: list[str] | None = None) -> int:
    """Run what the configuration file says. Returns the process's exit code."""
    log_json()
    arguments = sys.argv[1:] if arguments is None else arguments
    context = Context()
    signal.signal(signal.SIGTERM, lambda *_: context.stopping.set())
    grace = GRACE_SECONDS_WITH_VOLUME if context.volume else GRACE_SECONDS
    late = failed(Reason.TERMINATED, "the pod was told to stop")
    leave_in_time(context.stopping, grace - MARGIN, lambda: write_report(late))
    serve(lambda: context.progress)
    report = write_report(execute(handlers, arguments, context))
    log.info("report", extra={"outcome": report.outcome, "reason": report.reason, "text": report.message})
    if report.outcome == "Succeeded":
        return 0
    if report.reason is Reason.TERMINATED:
        return EXIT_TERMINATED
    return EXIT_PERMANENT if report.reason in PERMANENT else 1


def execute(handlers: Mapping[type[Any], Handler], arguments: list[str], context: Context) -> Report:
    """Run and turn every way to fail into a report."""
    try:
        run = _read(arguments, handlers)
        budget = getattr(run, "budget", None)
        context.guard = Guard(budget) if budget is not None else None
        peers.limit(getattr(run, "egress", None))
        handler = handlers[type(run)]
        report = (pkgutil.resolve_name(handler) if isinstance(handler, str) else handler)(run, context)
    except RunFailed as known:
        report = failed(known.reason, known.message)
    except MemoryError:
        report = failed(Reason.OUT_OF_MEMORY, "the process ran out of memory")
    except (Exception, SystemExit) as error:  # libraries that think they are programs leave with SystemExit
        traceback.print_exc()
        if full(error):
            report = failed(Reason.DISK_FULL, told(error, context.volume, context.work))
        elif ran_out(error):
            report = failed(Reason.OUT_OF_MEMORY, f"{type(error).__name__}: {error}")
        else:
            report = failed(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a library in Rust, which means to end the whole process
            raise
        traceback.print_exc()
        endless = "retry-limit" in str(error)  # Oniguruma's, after ten million steps
        words = "a pattern of the tokenizer takes for ever" if endless else type(error).__name__
        report = failed(Reason.UNSAFE_SOURCE if endless else Reason.INTERNAL_ERROR, f"{words}: {error}")
    inputs = {bounded(role, 1024): bounded(uri, 1024) for role, uri in list(context.inputs.items())[:24]}
    said = context.progress
    seen = {
        "seconds": round(context._clock() - context.started, 2),
        "resumes": said.resumes,
        "lost_steps": said.lost_steps,
    }
    licenses = {bounded(role, 63): found for role, found in list(context.licenses.items())[:24]}
    verified = {bounded(role, 63): key for role, key in list(context.verified.items())[:64]}
    return report.model_copy(update={"inputs": inputs, "licenses": licenses, "verified": verified} | seen)


def _read(arguments: list[str], handlers: Mapping[type[Any], Handler]) -> Any:
    if len(arguments) != 1:
        raise RunFailed(Reason.INVALID_CONFIGURATION, "one argument is expected: the path of the run's configuration")
    try:
        run = TypeAdapter[Any](AnyRun).validate_json(Path(arguments[0]).read_bytes())
    except OSError as error:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{arguments[0]}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the configuration"
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{where}: {first['msg']}") from None
    if type(run) not in handlers:
        known = ", ".join(kind.__name__ for kind in handlers)
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"type: this image runs {known}, not {type(run).__name__}")
    return run
