"""A run's end: whatever happens, the kubelet finds a valid report of bounded size."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slmkit.full import told
from slmkit.reporting import write_report
from slmkit.run import Context, RunFailed, execute
from slmops.contract import (
    REPORT_LIMIT,
    Artifact,
    CurvePoint,
    Figures,
    Learning,
    Metric,
    PackedAdapter,
    Paired,
    PullRun,
    Reason,
    Report,
    Round,
    Statistics,
    TargetFigures,
)
from slmops.rollout import verdict

DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    path.write_text('{"type": "Pull", "run": "r", "model_path": "/models", "from_the_future": 1}')
    return path


@pytest.fixture
def termination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TERMINATION_PATH", str(tmp_path / "termination-log"))
    return tmp_path / "termination-log"


def written(report: Report, termination: Path) -> Report:
    """What the operator reads of a report."""
    returned = write_report(report)
    content = termination.read_bytes()
    assert len(content) <= REPORT_LIMIT
    found = Report.model_validate_json(content)
    assert found == returned
    return found


def end_of(handler: Callable[[Any, Context], Report], configuration: Path, termination: Path) -> Report:
    return written(execute({PullRun: handler}, [str(configuration)], Context(clock=lambda: 0.0)), termination)


def raising(error: BaseException) -> Callable[[Any, Context], Report]:
    def handler(run: Any, context: Context) -> Report:
        raise error

    return handler


class OutOfMemoryError(RuntimeError):
    """As PyTorch's is named."""


class PanicException(BaseException):
    """As pyo3 names what a library in Rust ends with: the tokenizers library at Oniguruma's limit."""


class SafetensorError(Exception):
    """As safetensors' is named, which is no OSError."""


ENDS: list[tuple[BaseException, Reason, str]] = [
    (RunFailed(Reason.INVALID_DATA, "line 3"), Reason.INVALID_DATA, "line 3"),
    (RunFailed(Reason.INVALID_DATA, "a\n\tb  c\r\n"), Reason.INVALID_DATA, "a b c"),
    (RunFailed(Reason.INVALID_DATA, "name \udc80.jsonl"), Reason.INVALID_DATA, "name ?.jsonl"),
    (MemoryError(), Reason.OUT_OF_MEMORY, "the process ran out of memory"),
    (OutOfMemoryError("CUDA out of memory"), Reason.OUT_OF_MEMORY, "OutOfMemoryError: CUDA out of memory"),
    (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), Reason.OUT_OF_MEMORY, "RuntimeError: Default"),
    (RuntimeError("CUDA error: out of memory"), Reason.OUT_OF_MEMORY, "RuntimeError: CUDA error"),
    (OSError(errno.ENOSPC, "No space left on device", "/scratch/x"), Reason.DISK_FULL, "no space left: /scratch/x"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "/scratch/x"), Reason.DISK_FULL, "no space left: /scratch/x"),
    (
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Reason.DISK_FULL,
        "no space left:",
    ),
    (SafetensorError("I/O error: (os error 122)"), Reason.DISK_FULL, "no space left:"),
    (SafetensorError("I/O error: (os error 285)"), Reason.INTERNAL_ERROR, "SafetensorError: I/O"),
    (
        OSError(errno.EIO, "I/O error", "/scratch/x"),
        Reason.INTERNAL_ERROR,
        "OSError: [Errno 5] I/O error: '/scratch/x'",
    ),
    (ValueError("x"), Reason.INTERNAL_ERROR, "ValueError: x"),
    (RecursionError("deep"), Reason.INTERNAL_ERROR, "RecursionError: deep"),
    (AssertionError(), Reason.INTERNAL_ERROR, "AssertionError:"),
    (SystemExit(0), Reason.INTERNAL_ERROR, "SystemExit: 0"),
    (
        PanicException("Onig: Regex search error: retry-limit-in-match over"),
        Reason.UNSAFE_SOURCE,
        "a pattern of the tokenizer takes for ever: Onig: Regex search error",
    ),
    (PanicException("index out of bounds"), Reason.INTERNAL_ERROR, "PanicException: index out of bounds"),
    (ExceptionGroup("g", [ValueError("x")]), Reason.INTERNAL_ERROR, "ExceptionGroup: g (1 sub-exception)"),
]


@pytest.mark.parametrize(("error", "reason", "message"), ENDS, ids=lambda value: repr(value)[:40])
def test_every_way_to_fail_is_a_report(
    configuration: Path, termination: Path, error: BaseException, reason: Reason, message: str
) -> None:
    report = end_of(raising(error), configuration, termination)
    assert (report.outcome, report.reason) == ("Failed", reason)
    assert report.message.startswith(message)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_who_ends_the_process_is_not_kept_from_it(configuration: Path, termination: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        end_of(raising(error), configuration, termination)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/state/checkpoints/x"), "no space left on run.volume: /state/"),
        (OSError(errno.ENOSPC, "No space left on device", "/scratch/x"), "no space left: /scratch/x"),
        (SafetensorError("No space left on device (os error 28)"), "no space left on run.volume:"),
    ],
    ids=["a file on it", "a file elsewhere", "no file"],
)  # fmt: skip
def test_a_full_volume_is_told_from_a_full_node(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    free = {Path("/state"): 4096, Path("/work"): 1 << 30}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path]))
    assert told(error, Path("/state"), Path("/work")).startswith(message)
    assert told(error, None, Path("/work")).startswith("no space left:")


@pytest.mark.parametrize("letter", ["x", "ä", "\U0001f600", "\x00", '"', "\\", "\ud800", "line\n"])
def test_a_message_of_any_length_fits(configuration: Path, termination: Path, letter: str) -> None:
    failed = RunFailed(Reason.INVALID_DATA, "the file: " + letter * 100_000)
    report = end_of(raising(failed), configuration, termination)
    assert report.message.startswith("the file:"), "shortened, not dropped"
    assert report.reason is Reason.INVALID_DATA


def test_a_run_that_ends_well_says_what_it_made_and_from_what(configuration: Path, termination: Path) -> None:
    artifact = Artifact(reference=f"r.example/a@{DIGEST}", size=5)

    def handler(run: PullRun, context: Context) -> Report:
        assert run.model_path == "/models"
        context.inputs["model"] = f"oci://r.example/m@{DIGEST}"
        return Report(outcome="Succeeded", artifacts={"model": artifact})

    times = iter([10.0, 10.0, 17.256])
    report = written(execute({PullRun: handler}, [str(configuration)], Context(clock=lambda: next(times))), termination)
    assert report.outcome == "Succeeded"
    assert report.artifacts == {"model": artifact}
    assert report.inputs == {"model": f"oci://r.example/m@{DIGEST}"}
    assert report.seconds == 7.26


def test_a_failed_run_still_says_from_what(configuration: Path, termination: Path) -> None:
    def handler(run: PullRun, context: Context) -> Report:
        context.inputs["model"] = "oci://r.example/m"
        raise RunFailed(Reason.UNSAFE_SOURCE, "x")

    assert end_of(handler, configuration, termination).inputs == {"model": "oci://r.example/m"}


@pytest.mark.parametrize(
    "inputs", [{"x": "y" * 5000}, {"x" * 2000: "y"}, {str(i): "y" for i in range(99)}, {"x": "\ud800"}]
)
def test_inputs_out_of_bounds_do_not_spoil_the_report(
    configuration: Path, termination: Path, inputs: dict[str, str]
) -> None:
    def handler(run: PullRun, context: Context) -> Report:
        context.inputs |= inputs
        return Report(outcome="Succeeded")

    report = end_of(handler, configuration, termination)
    assert report.outcome == "Succeeded"
    assert 0 < len(report.inputs) <= 24


def test_of_many_adapters_it_is_told_what_was_made_and_of_the_model_where_it_is_from(termination: Path) -> None:
    names = [f"irrigation-{number}" for number in range(16)]
    inputs = {"model": "oci://r.example/m"} | {f"adapter.{name}": "oci://" + "r" * 150 for name in names}
    packed = {name: PackedAdapter(layer=DIGEST, size=288_768, similarity=0.998877) for name in names}
    report = written(Report(outcome="Succeeded", inputs=inputs, adapters=packed), termination)
    assert report.adapters == packed
    assert report.inputs == {"model": "oci://r.example/m"}


def test_what_was_made_outlives_what_it_was_made_from(termination: Path) -> None:
    made = {"model": Artifact(reference=f"r.example/a@{DIGEST}", size=5)}
    long = Report(outcome="Succeeded", message="m" * 1024, artifacts=made, inputs={str(i): "u" * 500 for i in range(9)})
    report = written(long, termination)
    assert (report.outcome, report.artifacts, report.inputs) == ("Succeeded", made, {})


def test_sixteen_rounds_of_two_servers_fit(termination: Path) -> None:
    figures = Round(time_to_first_token_seconds=0.0001234, tokens_per_second=12340.0, request_seconds=0.0001234)
    target = TargetFigures(
        rounds=(figures,) * 16, time_to_first_token_p95_seconds=0.0001234, request_p95_seconds=0.0001234,
        requests=16_000, errors=12, exact_match=0.9375, peak_memory_bytes=1 << 33,
    )  # fmt: skip
    inputs = {"data": f"oci://registry.example:5000/slm/data/farm@{DIGEST}"}
    report = Report(
        outcome="Succeeded", inputs=inputs, targets={"stable": target, "candidate": target}, seconds=9999.99
    )
    assert written(report, termination) == report


def test_a_benchmark_of_which_everything_was_measured_fits(termination: Path) -> None:
    """Rounds become their medians: with the intervals told, nobody needs more of them."""
    names = ("TokensPerSecond", "TimeToFirstToken", "RequestLatency", "ExactMatch")
    rounds = tuple(
        Round(
            time_to_first_token_seconds=0.0001234 + n * 1e-7, tokens_per_second=12340.0 + n, request_seconds=0.0001234
        )
        for n in range(16)
    )
    target = TargetFigures(
        rounds=rounds, time_to_first_token_p95_seconds=0.0001234, request_p95_seconds=0.0001234,
        requests=16_000, errors=12_345, exact_match=0.0001234, peak_memory_bytes=1 << 43,
        intervals=dict.fromkeys(names, (0.0001234, 0.0001234)),
    )  # fmt: skip
    pair = Paired(ratio=0.0001234, low=0.0001234, high=0.0001234, pairs=16_000)
    statistics = Statistics(paired=dict.fromkeys(names, pair), noise=dict.fromkeys(names, 0.0001234),
                            disturbances=("x" * 64,) * 4)  # fmt: skip
    inputs = {"data": f"oci://{'r' * 400}@{DIGEST}"}
    targets = {"stable": target, "candidate": target}
    long = Report(outcome="Succeeded", inputs=inputs, targets=targets, statistics=statistics, seconds=99999.99)
    report = written(long, termination)
    assert (report.outcome, report.inputs, report.statistics) == ("Succeeded", inputs, statistics)
    assert report.targets["stable"].intervals == target.intervals
    assert {name: verdict.figures(found) for name, found in report.targets.items()} == {
        name: verdict.figures(target) for name in targets
    }, "status shows the same"
    usual = long.model_copy(update={"targets": {name: t.model_copy(update={"rounds": rounds[:8]})
                                                for name, t in targets.items()}})  # fmt: skip
    assert written(usual, termination) == usual


def test_a_training_of_which_everything_was_measured_fits(termination: Path) -> None:
    """What it made and how good it is stays; of the curve all points are among the logs."""
    ends = dict.fromkeys(Metric, (0.9123, 0.9456))
    figures = Figures(exact_match=0.9345, accuracy=0.9345, f1=0.9345, bleu=0.9345, rouge=0.9345, perplexity=1.2345,
                      samples=500, inference_seconds=0.12345, first_token_seconds=0.01234, peak_memory_bytes=1 << 33,
                      weight_bytes=1 << 33, parameters=1 << 33, intervals=ends, correlation=0.5)  # fmt: skip
    curve = tuple(CurvePoint(step=i * 100, train_loss=1.234567, eval_loss=1.234567) for i in range(16))
    reference = f"registry.example.com/team/slm/farm-irrigation@{DIGEST}"
    described = Artifact(reference=reference, size=1 << 33, documents=(DIGEST,) * 3)
    plain = Artifact(reference=reference, size=1 << 20)
    long = Report(
        outcome="Succeeded", inputs={"base": f"oci://{reference}", "train": f"oci://{reference}"},
        artifacts={"model": described, "adapter": described, "logs": plain, "data": plain},
        evaluation=dict.fromkeys(("model", "baseline", "baseTask", "baseTaskBefore"), figures),
        learning=Learning(steps=1600, curve=curve),
    )  # fmt: skip
    report = written(long, termination)
    assert (report.artifacts, report.evaluation) == (long.artifacts, long.evaluation)
    assert report.learning == Learning(steps=1600)


def test_a_report_that_cannot_fit_is_a_failure_that_says_so(termination: Path) -> None:
    huge = {f"model-{i}": Artifact(reference=f"{'r' * 400}/a@{DIGEST}", size=5) for i in range(16)}
    report = written(Report(outcome="Succeeded", artifacts=huge), termination)
    assert (report.outcome, report.reason) == ("Failed", Reason.INTERNAL_ERROR)
    assert "does not fit" in report.message


def test_a_report_that_cannot_be_left_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERMINATION_PATH", str(tmp_path))
    write_report(Report(outcome="Succeeded", evaluation={"model": Figures(exact_match=0.5)}))
    assert '"exact_match":0.5' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "Invalid JSON"), ("[]", "the configuration: Input should be an object"), ("{}", "'type'"),
        ('{"type": "Dance"}', "'Dance'"),
        ('{"type": "Pull"}', "Pull.run: Field required"), ('{"type": "Pull", "run": 5, "model_path": "/"}', "Pull.run"),
        ('{"type": "Serve", "model_name": "x", "model_path": "/"}', "this image runs PullRun, not ServeRun"),
        ("[" * 100_000, "Invalid JSON"), (b"\xff", "Invalid JSON"), (None, "No such file"), ("DIR", "Is a directory"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_used_names_the_field(
    tmp_path: Path, termination: Path, content: str | bytes | None, words: str
) -> None:
    path = tmp_path / "run.json"
    if content == "DIR":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = end_of(raising(AssertionError("not reached")), path, termination)
    assert report.reason is Reason.INVALID_CONFIGURATION
    assert words in report.message


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_exactly_one_argument_is_expected(termination: Path, arguments: list[str]) -> None:
    report = written(execute({}, arguments, Context()), termination)
    assert report.reason is Reason.INVALID_CONFIGURATION
    assert "one argument" in report.message
