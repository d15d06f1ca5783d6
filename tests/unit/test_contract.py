"""What operator and images say to each other: configurations survive the way, and nothing that a pod says is trusted."""

import json
from functools import partial
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from slmops import contract
from slmops.contract import LARGEST, AnyRun, Message, Progress, Report
from slmops.state import parse_report
from tests.unit.builders import DIGEST, artifact, figures, report, said

RUNS: tuple[type[Message], ...] = get_args(get_args(AnyRun)[0])
words = st.text(max_size=20)
PLAIN: dict[object, st.SearchStrategy[Any]] = {
    str: words, int: st.integers(), bool: st.booleans(), type(None): st.none(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    Any: st.one_of(st.text(max_size=8), st.integers(-9, 9), st.lists(st.text(max_size=8), max_size=2)),
}  # fmt: skip


def messages(model: type[Message]) -> st.SearchStrategy[Message]:
    """Any message of a kind."""
    fields = {name: values(Annotated[f.annotation, f] if f.metadata else f.annotation)
              for name, f in model.model_fields.items()}  # fmt: skip
    return st.builds(model, **fields)


def fits(adapter: TypeAdapter[Any], value: object) -> bool:
    """Whether a value keeps the bounds of its type."""
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return st.one_of(*map(values, inner))
    if origin is Annotated:
        patterns = [p for field in inner[1:] for each in field.metadata if (p := getattr(each, "pattern", None))]
        any_of = st.from_regex(patterns[0], fullmatch=True) if patterns else values(inner[0])
        return any_of.filter(partial(fits, TypeAdapter(annotation)))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple:
        return st.lists(values(inner[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(*map(values, inner), max_size=2)
    if annotation in PLAIN:
        return PLAIN[annotation]
    return messages(annotation) if issubclass(annotation, Message) else st.sampled_from(annotation)


# --- configurations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", RUNS, ids=lambda model: model.__name__)
def test_every_run_arrives_as_it_was_sent(model: type[Message]) -> None:
    @settings(derandomize=True, max_examples=15)
    @given(messages(model))
    def arrives(run: Message) -> None:
        text = run.model_dump_json(exclude_defaults=False)
        assert TypeAdapter(AnyRun).validate_json(text) == run

    arrives()


def test_the_type_tells_runs_apart_and_an_unknown_one_is_refused() -> None:
    types = [model.model_fields["type"].default for model in RUNS]
    assert len(set(types)) == len(types) == 13
    with pytest.raises(ValidationError, match="Deploy"):
        TypeAdapter(AnyRun).validate_json('{"type": "Deploy", "run": "x"}')


def test_an_older_image_reads_a_newer_operators_file() -> None:
    run = contract.PullRun(run="x", model_path="/models")
    newer = json.loads(run.model_dump_json()) | {"checksum": True}
    assert TypeAdapter(AnyRun).validate_json(json.dumps(newer)) == run


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_setting_that_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(ValidationError):
        contract.Hyperparameters.model_validate_json(f'{{"learning_rate": {number}}}')


# --- reports -------------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = json.loads(
    said(
        report(
            "model",
            message="done",
            inputs={"base": f"oci://registry.example/base@{DIGEST}"},
            dataset=contract.DatasetCounts(prompts=9, labelled=8, kept=7, dropped={"TooLong": 1}, tokens=60),
            evaluation={"model": figures(perplexity=1.5, inference_seconds=0.2, weight_bytes=10)},
            targets={
                "stable": contract.TargetFigures(
                    rounds=(
                        contract.Round(time_to_first_token_seconds=0.1, tokens_per_second=9.0, request_seconds=1.0),
                    ),
                    requests=20,
                    errors=0,
                    intervals={"TokensPerSecond": (8.5, 9.5)},
                )
            },
            statistics=contract.Statistics(
                paired={"TokensPerSecond": contract.Paired(ratio=0.95, low=0.93, high=0.97, pairs=60)},
                noise={"TokensPerSecond": 0.02},
                disturbances=("3 thermal throttling events",),
            ),
            seconds=12.5,
        )
    )
)


def paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the numbers of a message are."""
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return [found for key, value in items for found in paths(value, (*path, key))]
    return [path] if isinstance(node, int | float) else []


def with_value(message: dict[str, Any], path: tuple[Any, ...], text: str) -> str:
    """The message as JSON, with other text at the path."""
    copy = json.loads(json.dumps(message))
    part = copy
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = "@@"
    return json.dumps(copy).replace('"@@"', text)


def test_a_good_report_is_read() -> None:
    found = parse_report(json.dumps(GOOD))
    assert found is not None
    assert found.artifacts["model"] == artifact("model")
    assert found.evaluation["model"].exact_match == 0.9


@pytest.mark.parametrize("path", paths(GOOD), ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1e308", "1" + "0" * 400, '"many"', "null", "[]", "{}"])
def test_a_report_with_a_figure_out_of_bounds_is_no_report(path: tuple[Any, ...], value: str) -> None:
    """Null is what figures that were not measured are; perplexity may be as large as it likes, it is only shown."""
    found = parse_report(with_value(GOOD, path, value))
    if path[0] == "evaluation" and (value == "null" or (path[-1], value) == ("perplexity", "1e308")):
        assert found is not None
    else:
        assert found is None


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "Perhaps"},
        {"outcome": None},
        {"reason": "BadLuck"},
        {"message": "x" * 1025},
        {"artifacts": {"model": {"reference": "registry.example/slm/model:v1", "size": 1}}},
        {"artifacts": {"model": {"reference": f"registry.example/a b@{DIGEST}", "size": 1}}},
        {"artifacts": {"model": {"reference": f"a@b@{DIGEST}", "size": 1}}},
        {"artifacts": {"model": {"reference": f"registry.example/x@{DIGEST}\n", "size": 1}}},
        {"artifacts": {"model": {"reference": f"{'x' * 500}@{DIGEST}", "size": 1}}},
        {"artifacts": {f"a{i}": {"reference": f"x/y@{DIGEST}", "size": 1} for i in range(17)}},
        {"artifacts": {"m" * 64: {"reference": f"x/y@{DIGEST}", "size": 1}}},
        {"inputs": {str(i): "x" for i in range(25)}},
        {"adapters": {f"a{i}": {"layer": DIGEST, "size": 1} for i in range(17)}},
        {"adapters": {"a": {"layer": "sha256:0", "size": 1}}},
        {"adapters": {"a": {"layer": DIGEST, "size": 1, "similarity": 1.1}}},
        {"inputs": {"data": "x" * 1025}},
        {"inputs": {"d" * 1025: "x"}},
        {"evaluation": {f"m{i}": {} for i in range(9)}},
        {"evaluation": {"m" * 64: {}}},
        {"evaluation": {"model": {"exact_match": 1.0001}}},
        {"evaluation": {"model": {"perplexity": 0.5}}},
        {"dataset": {"prompts": 1, "labelled": 1, "kept": 1, "dropped": {str(i): 1 for i in range(33)}}},
        {"targets": {"a": {}, "b": {}, "c": {}}},
        {
            "targets": {
                "a": {"rounds": [], "requests": 1, "errors": 0, "intervals": {f"m{i}": [0, 1] for i in range(9)}}
            }
        },
        {"targets": {"a": {"rounds": [], "requests": 1, "errors": 0, "intervals": {"m": [0, 1, 2]}}}},
        {"statistics": {"paired": {f"m{i}": {"ratio": 1, "low": 1, "high": 1, "pairs": 1} for i in range(9)}}},
        {"statistics": {"paired": {"m": {"ratio": 1, "low": 1, "pairs": 1}}}},
        {"statistics": {"noise": {f"m{i}": 0 for i in range(9)}}},
        {"statistics": {"disturbances": ["load"] * 5}},
        {"statistics": {"disturbances": ["x" * 65]}},
        {"statistics": {"disturbances": [""]}},
        {"statistics": {"disturbances": ["\x1b[31mload"]}},
        {"statistics": {"disturbances": ["load\n"]}},
    ],
)
def test_a_report_that_says_too_much_or_nonsense_is_no_report(change: dict[str, Any]) -> None:
    assert parse_report(json.dumps(GOOD | change)) is None


@pytest.mark.parametrize(
    "text", ["", "   ", "null", "[]", "7", '"Succeeded"', "{", "killed", "\x00", "[" * 10**5, '{"a":' * 10**5, "\ud800"]
)
def test_what_is_no_report_is_none_and_never_an_exception(text: str) -> None:
    assert parse_report(text) is None


def test_a_message_that_the_kubelet_cut_off_at_its_limit_is_no_report() -> None:
    long = json.dumps(GOOD | {"inputs": {f"source-{i}": "x" * 1000 for i in range(5)}})
    assert len(long.encode()) > contract.REPORT_LIMIT
    assert parse_report(long) is not None
    assert parse_report(long.encode()[: contract.REPORT_LIMIT].decode()) is None


def test_unknown_fields_of_a_newer_image_are_ignored_at_any_depth() -> None:
    newer = GOOD | {"weather": "fair", "evaluation": {"model": {"exact_match": 0.9, "beauty": 0.3}}}
    found = parse_report(json.dumps(newer))
    assert found is not None
    assert found.evaluation == {"model": figures()}


@settings(derandomize=True, max_examples=120)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | words,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from([*Report.model_fields, *contract.Figures.model_fields, "size", "x"]), inner,
                        max_size=5), max_leaves=12))  # fmt: skip
def test_no_json_that_a_pod_can_write_raises(content: Any) -> None:
    found = parse_report(json.dumps(content))
    assert found is None or found.outcome in ("Succeeded", "Failed")


def test_what_was_kept_of_a_report_is_the_whole_of_it() -> None:
    before = parse_report(json.dumps(GOOD))
    assert before is not None
    assert parse_report(said(before)) == before


# --- progress ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"stage": "x" * 33},
        {"stage": ""},
        {"stage": "\x1b[31mSucceeded"},
        {"stage": "Training\nSucceeded"},
        {"stage": "Training", "step": -1},
        {"stage": "Training", "step": LARGEST + 1},
        {"stage": "Training", "of": 10**400},
        {"stage": "Training", "step": 1.5},
        {"stage": "Training", "loss": float("nan")},
        {"stage": "Training", "loss": float("-inf")},
        {"stage": "Training", "tokens_per_second": -1},
        {"stage": "Training", "eta_seconds": 1e300},
        [],
        "Training",
        None,
    ],
)
def test_progress_out_of_bounds_is_refused(answer: object) -> None:
    with pytest.raises(ValidationError):
        Progress.model_validate(answer)


@pytest.mark.parametrize("stage", ["Fetching", "WaitingForTeacher", "Evaluating baseline", "Warmup"])
def test_the_stages_of_our_images_are_good_progress(stage: str) -> None:
    assert Progress.model_validate({"stage": stage, "step": 3, "of": 0, "mood": "fine"}).step == 3
