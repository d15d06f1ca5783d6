"""The stages of a quantization run: which there are, what each is expected to take, and which one a conversion is in."""

import io
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TextIO, TypeVar

from slmkit.course import Course
from slmkit.run import Context, RunFailed
from slmops.contract import QuantizeRun

T = TypeVar("T")


class Passes:
    """Tells a run which pass of its conversion is under way. Nobody where a model is built to be compared with alone."""

    def __init__(self, context: Context | None = None) -> None:
        self._context = context
        self._failed: RunFailed | None = None

    def begin(self, stage: str, of: int = 0) -> None:
        """A pass over ``of`` layers (0: it does not say how far it is). Raises RunFailed where the run has to end."""
        if self._context is not None:
            self.check()
            self._context.stage(stage, of)

    def each(self, stage: str, layers: Collection[T] | Any) -> Iterator[T]:
        """A pass over layers, one after the other."""
        self.begin(stage, len(layers))
        for number, layer in enumerate(layers, 1):
            yield layer
            self.step(number)
            self.check()

    def step(self, number: int) -> None:
        """So many layers are done. Raises nothing, since libraries that call it go on after what is raised."""
        if self._context is None or self._failed is not None:
            return
        try:
            self._context.step(number)
        except RunFailed as failed:
            self._failed = failed

    def check(self) -> None:
        """Raise what the run has to end for."""
        if self._failed is not None:
            raise self._failed
        if self._context is not None:
            self._context.check()


QUIET = Passes()


def converting(name: str) -> str:
    """The stage of a pass, by what it makes or by its algorithm."""
    return f"Converting {name}"


LAYER = re.compile(r"^Reading layer (\d+)|Processing layers\.\.\..* (\d+)/\d+ \[")
"""How ONNX Runtime GenAI's builder names the layer that it begins, and Olive's GPTQ counts those that it has done."""


class Listening(io.TextIOBase):
    """A stream that passes on what libraries print, and tells how many layers they say are done. Where they say nothing,
    or another version says it in other words, the pass is one that does not tell how far it is."""

    encoding = "utf-8"

    def __init__(self, out: TextIO, passes: Passes) -> None:
        self._out, self._passes = out, passes

    def write(self, text: str) -> int:
        """One print, or one change of a bar."""
        for one, other in LAYER.findall(text):
            self._passes.step(int(one or other))
        return self._out.write(text)

    def flush(self) -> None:
        """Of the stream behind it."""
        self._out.flush()


CALIBRATED = {"AWQ": 30.0, "GPTQ": 60.0}
"""What passes over the records of calibration are expected to take."""


def conversion(run: QuantizeRun) -> Mapping[str, float]:
    """The passes of a conversion, without pruning, and their weights."""
    found = {run.algorithm: CALIBRATED[run.algorithm]} if run.algorithm in CALIBRATED else {}
    rounded = run.format == "Safetensors" and run.precision in ("INT4", "INT8")
    if rounded and run.algorithm != "GPTQ":
        found["RTN"] = 25.0
    return found | {run.format: 5.0 if run.format == "Safetensors" else 30.0}


def course(run: QuantizeRun) -> Course:
    """All stages. The weights are proportions of times as they were seen on two cores with a small model, the loading of
    libraries among them; what a network and a disk take, nobody knows beforehand."""
    made = conversion(run)
    weights = {"Fetching": 10.0}
    if run.prune is not None:
        weights["Pruning"] = 20.0 if run.prune.method == "Wanda" else 5.0
    weights |= {converting(name): weight for name, weight in made.items()}
    weights["Verifying"] = 10.0
    if run.prune is not None:
        weights["Weighing"] = 5.0 + sum(made.values())
    if run.evaluation is not None and run.evaluation.data is not None:
        weights["Evaluating"] = 30.0
        if not whole(run):
            weights["Evaluating reference"] = 50.0
    return Course(weights | {"Publishing": 10.0})


def whole(run: QuantizeRun) -> bool:
    """Whether the variant is what it would be compared with: the model in ONNX, FP32, with all of its weights."""
    return (run.format, run.precision, run.device, run.prune) == ("ONNX", "FP32", "CPU", None)
