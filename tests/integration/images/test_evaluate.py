"""Which records a model is measured by, and what becomes of a measurement that fails."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from slm_quantizer import evaluate as quantizer
from slm_trainer import evaluate as trainer
from slm_trainer.evaluate import choose
from slm_trainer.label.answers import stopped
from slmkit import apart
from slmkit.apart import Look
from slmkit.data import Example
from slmkit.metrics import Measured
from slmkit.run import Context, RunFailed
from slmops.contract import Evaluation, Reason


def records(count: int, answer: str | None = "a") -> list[Example]:
    return [Example(({"role": "user", "content": str(number)},), answer) for number in range(count)]


def test_the_same_records_are_chosen_for_the_same_seed() -> None:
    chosen = choose(records(100), 10, 42)
    assert len({repr(example) for example in chosen}) == 10
    assert choose(records(100), 10, 42) == chosen
    assert choose(records(100), 10, 43) != chosen


def test_records_without_an_answer_measure_nothing() -> None:
    assert choose(records(5, None), 10, 42) == []
    mixed = records(5, None) + records(3)
    assert choose(mixed, 10, 42) == records(3)


def test_no_more_records_than_there_are() -> None:
    assert choose(records(5), 5, 42) == records(5)
    assert choose(records(5), 500, 42) == records(5)


def in_trainer(folder: Path, context: Context) -> object:
    return trainer.measure(folder, records(1), Evaluation(), context)


def in_quantizer(folder: Path, context: Context) -> object:
    return quantizer.measure(folder, [("p", "a")], records(1), Evaluation(), context)


Measure = Callable[[Path, Context], object]
both = pytest.mark.parametrize(
    ("measure", "reason"), [(in_trainer, Reason.INTERNAL_ERROR), (in_quantizer, Reason.VERIFICATION_FAILED)]
)


@pytest.fixture(autouse=True)
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a function of looks.py in the place of whoever looks."""

    def chosen(name: str) -> None:
        for module in (trainer, quantizer):
            monkeypatch.setattr(module, "LOOK", Look(f"tests.unit.images.looks:{name}", ()))

    return chosen


Choose = Callable[[str], None]


def program(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A Python of its own, that knows what this one does, to its end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path.cwd())])}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder, timeout=60)


@both
def test_a_measurement_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, measure: Measure, reason: Reason, look: Choose
) -> None:
    look("broken")
    with pytest.raises(RunFailed) as failed:
        measure(tmp_path / "missing", Context(tmp_path))
    assert failed.value.reason is reason
    assert failed.value.message.endswith(f"FileNotFoundError: {tmp_path}/missing"), "its last line"
    assert list(tmp_path.iterdir()) == []


@both
def test_a_measurement_whose_function_is_not_there_says_so(
    tmp_path: Path, measure: Measure, reason: Reason, look: Choose
) -> None:
    look("missing")
    with pytest.raises(RunFailed, match=r"AttributeError: .*missing") as failed:
        measure(tmp_path, Context(tmp_path))
    assert failed.value.reason is reason


@both
def test_a_measurement_that_is_killed_ran_out_of_memory_and_the_next_one_is_made(
    tmp_path: Path, measure: Measure, reason: Reason, look: Choose
) -> None:
    look("killed")
    with pytest.raises(RunFailed) as failed:
        measure(tmp_path / "missing", Context(tmp_path))
    assert failed.value.reason is Reason.OUT_OF_MEMORY
    look("fine")
    assert isinstance(measure(tmp_path, Context(tmp_path)), Measured)


def test_where_the_process_that_measures_is_killed_the_next_measurement_begins_another(
    tmp_path: Path, look: Choose
) -> None:
    look("fine")
    in_trainer(tmp_path, Context(tmp_path))
    first = apart._measurer("spawn")
    look("endless")
    threading.Timer(0.2, first._process.kill).start()
    with pytest.raises(RunFailed) as failed:
        in_trainer(tmp_path, Context(tmp_path))
    assert failed.value.reason is Reason.OUT_OF_MEMORY
    look("fine")
    assert isinstance(in_trainer(tmp_path, Context(tmp_path)), Measured)
    assert apart._measurer("spawn") is not first


@both
@pytest.mark.parametrize(
    "said",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory: you tried to",
        "MemoryError",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "RuntimeException: [ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
    ],
)
def test_a_measurement_that_says_so_ran_out_of_memory(
    tmp_path: Path, measure: Measure, reason: Reason, look: Choose, said: str
) -> None:
    look("complaining")
    (tmp_path / "words").write_text(said)
    with pytest.raises(RunFailed) as failed:
        measure(tmp_path, Context(tmp_path))
    assert failed.value.reason is Reason.OUT_OF_MEMORY
    assert said in failed.value.message


@both
def test_a_measurement_ends_with_the_run_that_is_told_to_stop(
    tmp_path: Path, measure: Measure, reason: Reason, look: Choose
) -> None:
    look("endless")
    context = Context(tmp_path)
    threading.Timer(0.2, context.stopping.set).start()
    with pytest.raises(RunFailed) as failed:
        measure(tmp_path / "missing", context)
    assert failed.value.reason is Reason.TERMINATED


@both
def test_what_was_seen_is_judged_and_told_on_the_way(
    tmp_path: Path, measure: Measure, reason: Reason, look: Choose
) -> None:
    look("fine")
    context = Context(tmp_path)
    context.stage("Evaluating")
    found = measure(tmp_path, context)
    assert isinstance(found, Measured)
    assert found.right == (True,)
    told = found.figures
    assert (told.exact_match, told.samples, told.inference_seconds) == (1, 1, 0.5)
    assert (told.peak_memory_bytes, told.weight_bytes, told.parameters) == (7, 9, None)
    said = context.progress
    assert (said.step, said.of, said.unit) == (1, 1, "Samples")


def test_a_small_program_does_not_report_the_memory_of_the_large_one_that_started_it(tmp_path: Path) -> None:
    """``ru_maxrss`` does: it outlives exec."""
    code = (
        "import resource; from slmkit.apart import peak_memory; "
        "print(peak_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    ballast = bytearray(200 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    done = program(code, tmp_path)
    ours, inherited = map(int, done.stdout.split())
    assert 10 * 2**20 < ours < 150 * 2**20
    assert inherited > 200 * 2**20
    del ballast


@pytest.mark.parametrize(
    ("stops", "out"), [((), "a b c"), (("b",), "a "), (("c", "b"), "a "), (("x",), "a b c"), (("a",), "")]
)
def test_a_local_teachers_answer_ends_before_the_first_stop_text(stops: tuple[str, ...], out: str) -> None:
    assert stopped("a b c", stops) == out


class Runtime:
    """ONNX Runtime GenAI, as far as it answers: it says these tokens, each of them a letter."""

    def __init__(self, *said: str) -> None:
        self._said = said
        self.GeneratorParams = lambda model: self
        self.Generator = lambda model, parameters: self

    def set_search_options(self, **options: object) -> None:
        self.given: list[int] = []
        self.made = 0

    def append_tokens(self, tokens: list[int]) -> None:
        self.given = list(tokens)

    def is_done(self) -> bool:
        return self.made == len(self._said)

    def generate_next_token(self) -> None:
        self.made += 1

    def get_sequence(self, index: int) -> list[int]:
        return [*self.given, *map(ord, self._said[: self.made])]

    def encode(self, text: str) -> list[int]:
        return [*map(ord, text)]

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


@pytest.mark.parametrize(
    ("said", "answer"), [("yes!", "yes"), ("yes", "yes"), ("!", ""), ("a!b", "a!b"), ("yes.", "yes"), ("yes!!", "yes!")]
)
def test_the_end_of_an_answer_is_no_part_of_it_also_where_it_would_be_read_as_text(said: str, answer: str) -> None:
    runtime = Runtime(*said)
    found, first, whole = quantizer.answer(runtime, None, runtime, "q", 9, 100, [ord("!"), ord(".")])
    assert found == answer
    assert first is not None
    assert whole is not None


def test_a_run_imports_for_all_that_it_measures_ends_them_when_it_is_told_to_and_ends(tmp_path: Path) -> None:
    code = """
import threading
from pathlib import Path
from slmkit.stop import stoppable
stoppable()
from slmkit.apart import Look, begin, measure_apart
from slmkit.run import Context, RunFailed
from slmops.contract import Reason

look = Look("tests.unit.images.looks:imported", ("colorsys", "missing.module"))
begin(look)
context = Context(Path("."))
for module in ("colorsys", "chunk.missing"):
    seen = measure_apart(look, {"module": module}, context, Reason.INTERNAL_ERROR, "")
    print(seen.answers, seen.weight_bytes)
threading.Timer(0.2, context.stopping.set).start()
try:
    measure_apart(Look("tests.unit.images.looks:endless", ()), {}, context, Reason.INTERNAL_ERROR, "")
except RunFailed as failed:
    print(failed.reason)
"""
    done = program(code, tmp_path)
    assert "noise" not in done.stdout, "the log of a run is lines of JSON"
    *measured, told = done.stdout.splitlines()
    (first, parent), (second, same) = (line.split("] ") for line in measured)
    assert (first, second) == ("['True'", "['False'")
    assert parent == same, "one process forks itself for both"
    assert (told, done.stderr) == ("Terminated", "")


def test_libraries_that_a_fork_has_not_used_are_counted_to_its_memory(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from slmkit import apart
from slmkit.run import Context
from slmops.contract import Reason

look = apart.Look("tests.unit.images.looks:counted", ("numpy",))
apart.begin(look)
seen = apart.measure_apart(look, {}, Context(Path(".")), Reason.INTERNAL_ERROR, "")
print(seen.peak_memory_bytes, apart._memory("VmRSS"))
"""
    done = program(code, tmp_path)
    counted, fresh = map(int, done.stdout.split())
    assert counted == pytest.approx(fresh, rel=0.1)
