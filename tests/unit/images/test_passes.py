"""The stages of a quantization run, and what libraries print of their layers."""

import io
from typing import Any

import pytest

from slm_quantizer.passes import Listening, Passes, converting, course, whole
from slmkit.run import Context, RunFailed
from slmops.contract import Data, Evaluation, Prune, QuantizeRun, Reason, Sink, Source

MEASURED = Evaluation(data=Data(source=Source(uri="oci://r.example/d"), format="Messages"))


def wish(**fields: Any) -> QuantizeRun:
    return QuantizeRun(run="x", model=Source(uri="oci://r.example/m"), name="x", variant="v",
                       output=Sink(repository="r.example/y"), **({"precision": "INT4"} | fields))  # fmt: skip


def stages(run: QuantizeRun) -> list[str]:
    return list(course(run)._weights)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["Converting ONNX"]),
        ({"algorithm": "GPTQ"}, ["Converting GPTQ", "Converting ONNX"]),
        ({"algorithm": "AWQ"}, ["Converting AWQ", "Converting ONNX"]),
        ({"format": "Safetensors"}, ["Converting RTN", "Converting Safetensors"]),
        ({"format": "Safetensors", "algorithm": "GPTQ"}, ["Converting GPTQ", "Converting Safetensors"]),
        ({"format": "Safetensors", "algorithm": "AWQ"}, ["Converting AWQ", "Converting RTN", "Converting Safetensors"]),
        ({"format": "Safetensors", "precision": "FP16"}, ["Converting Safetensors"]),
        ({"format": "MLX"}, ["Converting MLX"]),
        ({"prune": Prune(sparsity=0.3)}, ["Pruning", "Converting ONNX"]),
    ],
)
def test_each_conversion_has_its_passes(fields: dict[str, Any], expected: list[str]) -> None:
    found = stages(wish(**fields))
    assert found[0] == "Fetching"
    assert found[1 : 1 + len(expected)] == expected
    assert ("Weighing" in found) == ("prune" in fields)
    assert found[-1] == "Publishing"
    assert not any(name.startswith("Evaluating") for name in found)


def test_the_unquantized_model_is_measured_too_unless_it_is_the_variant() -> None:
    assert stages(wish(evaluation=MEASURED))[-3:] == ["Evaluating", "Evaluating reference", "Publishing"]
    full = wish(precision="FP32", evaluation=MEASURED)
    assert whole(full)
    assert stages(full)[-2:] == ["Evaluating", "Publishing"]
    lean = wish(precision="FP32", evaluation=MEASURED, prune=Prune(structure="2:4"))
    assert not whole(lean), "it is compared with the model that has all of its weights"
    assert "Evaluating reference" in stages(lean)


PRINTED = {
    "Reading embedding layer": 0, "Reading layer 2": 2, "Saving ONNX model in /work": 0,
    "\rProcessing layers...:  50%|#####     | 3/6 [00:01<00:01,  2.9it/s, module=layers.3]": 3,
    "Reading layers of 7 files": 0,
}  # fmt: skip


@pytest.mark.parametrize("text", PRINTED)
def test_layers_that_libraries_print_are_steps(text: str) -> None:
    context, out = Context(), io.StringIO()
    passes = Passes(context)
    passes.begin(converting("ONNX"), 6)
    print(text, file=Listening(out, passes), flush=True)
    assert (context.progress.stage, context.progress.step, context.progress.of) == ("Converting ONNX", PRINTED[text], 6)
    assert out.getvalue() == f"{text}\n", "what is printed is still to be read in the log"


def test_nothing_is_raised_into_a_library_and_all_of_it_is_afterwards() -> None:
    class Guard:
        def step(self, *_: Any) -> str:
            return "about 9 GPU hours are needed"

    context = Context()
    context.guard = Guard()  # type: ignore[assignment]
    passes = Passes(context)
    passes.begin(converting("GPTQ"), 24)
    passes.step(7)
    with pytest.raises(RunFailed, match="9 GPU hours") as failed:
        passes.check()
    assert failed.value.reason is Reason.BUDGET_EXCEEDED


def test_a_pass_over_layers_tells_of_each_and_ends_when_the_pod_does() -> None:
    context = Context()
    going = Passes(context).each(converting("AWQ"), ["a", "b", "c"])
    assert [next(going), next(going)] == ["a", "b"]
    assert (context.progress.step, context.progress.of) == (1, 3)
    context.stopping.set()
    with pytest.raises(RunFailed) as failed:
        next(going)
    assert failed.value.reason is Reason.TERMINATED


def test_what_is_built_to_compare_with_alone_tells_nobody() -> None:
    quiet = Passes()
    quiet.begin(converting("ONNX"), 3)
    quiet.step(1)
    quiet.check()
    assert list(quiet.each(converting("AWQ"), [1, 2])) == [1, 2]
