"""The bench itself: what counts as a write, when a target is missed, and what the simulated kubelet reports."""

import asyncio
import json
import os
import re
import socket
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bench import __main__ as bench
from bench import (
    adapters,
    backends,
    data,
    decode,
    figures,
    image,
    labelling,
    lives,
    memory,
    pushing,
    reconcile,
    serving,
    task,
    training,
)
from bench.audit import Write, by_resource, writes
from bench.reconcile import Measured
from bench.relay import Relay
from slm_quantizer.pack import layers
from slmkit.access import Access
from slmkit.registry import Registry
from slmkit.safety.adapters import listed
from slmops import contract
from slmops.state import parse_report
from tests.unit.images.fakeregistry import FakeRegistry, sha256

STAGES = Path(__file__).parents[1] / "cluster" / "kwok" / "stages.yaml"


def line(resource: str = "jobs", verb: str = "create", agent: str = "slmops", at: str = "10", **about: str) -> str:
    event = {
        "stage": "ResponseComplete", "verb": verb, "userAgent": agent,
        "objectRef": {"resource": resource, "namespace": "bench", **about},
        "requestReceivedTimestamp": f"1970-01-01T00:00:{at}.500000Z",
    }  # fmt: skip
    return json.dumps(event, separators=(",", ":")) + "\n"


def log(folder: Path, *lines: str, name: str = "audit.log") -> Path:
    path = folder / name
    path.write_text("".join(lines))
    os.utime(path, (100, 100))
    return path


def test_only_writes_of_these_clients_in_this_namespace_since_then_are_counted(tmp_path: Path) -> None:
    path = log(
        tmp_path,
        line(),
        line("finetunes", "patch", subresource="status"),
        line(verb="get"),
        line(verb="watch"),
        line("leases", "update"),
        line(agent="kubectl/v1"),
        line(namespace="elsewhere"),
        line(at="01"),
        line()[:40],
    )
    assert by_resource(writes(path, "bench", ["slmops"], since=5)) == {"create jobs": 1, "patch finetunes/status": 1}


def test_a_write_that_was_refused_is_counted_and_told_apart(tmp_path: Path) -> None:
    refused = json.dumps(json.loads(line()) | {"responseStatus": {"code": 409}}, separators=(",", ":")) + "\n"
    found = writes(log(tmp_path, line(), refused), "bench", ["slmops"], since=5)
    assert by_resource(found) == {"create jobs": 1, "create jobs, refused with 409": 1}


def test_writes_before_the_log_was_rotated_are_counted_too(tmp_path: Path) -> None:
    log(tmp_path, line(at="08"), name="audit-1970-01-01T00-00-09.000.log")
    path = log(tmp_path, line(at="10"))
    assert [write.at for write in writes(path, "bench", ["slmops"], since=5)] == [8.5, 10.5]


OURS = Measured(
    objects=100, first=1, taken_up=5, whole=50, cpu_taken_up=0.5, cpu_whole=1, cpu_quiet=0.1, phase_changes=300,
    writes=[Write(1, "slmops", "patch", "finetunes/status")] * 300, quiet=[], rss=1, peak=1,
)  # fmt: skip
NAIVE = replace(OURS, taken_up=10, cpu_whole=2)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, []),
        ({"taken_up": 5.1}, ["reconcile throughput"]),
        ({"cpu_whole": 1.01}, ["operator CPU per object"]),
        ({"phase_changes": 299}, ["status writes per phase change"]),
        ({"quiet": OURS.writes[:1]}, ["writes in the minute after convergence"]),
    ],
)
def test_a_target_is_met_exactly_up_to_its_bound(change: dict[str, Any], missed: list[str]) -> None:
    found = reconcile.judge(replace(OURS, **change), NAIVE)
    assert [figure.name for figure in found if not figure.met] == missed


def test_a_status_write_that_changes_no_phase_is_told_by_what_it_changes() -> None:
    seen = lives.Lives(None, "bench")  # type: ignore[arg-type]
    waits = {"type": "Trained", "status": "Unknown", "message": ""}
    for status in (
        {"phase": "Pending", "conditions": [waits]},
        {"phase": "Pending", "conditions": [waits | {"message": "no node fits"}]},
        {"phase": "Training", "conditions": [waits]},
        {"phase": "Training", "conditions": [waits], "cost": {"nodeHours": 1}},
        {"phase": "Training", "conditions": [waits], "cost": {"nodeHours": 1}},
    ):
        seen._see({"metadata": {"name": "tune"}, "status": status})
    assert seen.changes == 2
    assert seen.others == {"Pending: condition Trained": 1, "Training: cost": 1}
    assert "1 status writes without a change of phase, Training: cost" in reconcile._told(
        "ours", replace(OURS, others=seen.others)
    )


def test_what_was_not_measured_is_missed() -> None:
    found = {figure.name: figure for figure in task.judge({"model": {"ExactMatch": 0.9}}, "")}
    assert not any(figure.met for figure in found.values() if figure.target)
    assert "not measured" in found["student's inference time"].value


def test_the_time_to_the_first_step_is_what_status_said_while_the_student_was_trained() -> None:
    """It stands there as long as the Job runs: what comes after it has none."""
    training = {"stage": "Training", "percent": 5, "firstStep": "1m12s"}
    statuses: list[dict[str, Any]] = [
        {},
        {"phase": "Labelling", "progress": {"stage": "Labelling"}},
        {"phase": "Training", "progress": training},
        {"phase": "Training", "progress": training | {"percent": 50}},
        {"phase": "Evaluating"},
        {"evaluation": {"model": {}}, "conditions": [{"type": "Succeeded", "status": "True"}]},
    ]
    evaluation, first = asyncio.run(task.followed(lambda: {"status": statuses.pop(0)}, pause=0))
    assert (evaluation, first) == ({"model": {}}, "1m12s")
    (figure,) = (found for found in task.judge(evaluation, first) if "first step" in found.name)
    assert (figure.value, figure.met) == ("1m12s", True)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with places for two benchmarks."""
    path = tmp_path / "benchmarks.md"
    monkeypatch.setattr(figures, "PAGE", path)
    places = (f"{figures.BEGIN.format(name)}\nold {name}\n{figures.END.format(name)}\n" for name in ("data", "memory"))
    path.write_text("before\n" + "between\n".join(places) + "after\n")
    return path


def test_a_table_replaces_the_one_before_and_nothing_else(page: Path) -> None:
    figures.write({"memory": [figures.Figure("speed", "fast", "slow", met=False)]}, "python -m bench")
    figures.write({"memory": [figures.Figure("speed", "fast", "quick")]}, "python -m bench memory")
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "between\n" in text
    assert "old data" in text
    assert "quick" in text
    assert "slow" not in text
    assert "old memory" not in text


def test_several_tables_are_put_where_they_belong(page: Path) -> None:
    figures.write({name: [figures.Figure(f"{name}'s", "", "1")] for name in ("memory", "data")}, "python -m bench")
    text = page.read_text()
    assert "old" not in text
    assert text.index("data's") < text.index("between") < text.index("memory's")


def test_a_page_without_markers_is_left_alone(page: Path) -> None:
    before = page.read_text()
    with pytest.raises(RuntimeError, match="markers"):
        figures.write({"memory": [], "task": []}, "python -m bench")
    assert page.read_text() == before


def test_a_page_without_markers_is_told_before_anything_is_measured(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(labelling, "run", lambda: pytest.fail("measured"))
    assert bench.main(["labelling", "--write"]) == 2
    assert "markers" in capsys.readouterr().err


def test_the_page_has_a_place_for_every_benchmark() -> None:
    figures.check_page(bench.ALL)


def test_what_was_measured_is_kept_where_the_next_one_fails(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> list[figures.Figure]:
        raise TimeoutError("no end")

    monkeypatch.setattr(bench, "ALL", ["data", "memory"])
    monkeypatch.setattr(bench, "ALONE", {"data", "memory"})
    monkeypatch.setattr(data, "run", lambda: [figures.Figure("speed", "", "quick")])
    monkeypatch.setattr(memory, "run", lambda objects: fails())
    assert bench.main(["--write"]) == 2
    assert "quick" in page.read_text()
    assert "old memory" in page.read_text()


def test_a_cluster_of_the_users_own_is_refused_before_anything_is_pushed_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "CLUSTER", SimpleNamespace(healthy=lambda: True))
    monkeypatch.setattr(memory, "run", lambda objects: pytest.fail("measured"))
    (tmp_path / "config").write_text("")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for arguments in (["--check"], ["memory"]):
        assert bench.main(arguments) == 2
        assert "unset KUBECONFIG" in capsys.readouterr().err
    assert bench.main(["data", "--check"]) == 0
    monkeypatch.delenv("KUBECONFIG")
    assert bench.main(["--check"]) == 0


def test_make_asks_first() -> None:
    recipe = (Path(bench.__file__).parents[1] / "Makefile").read_text().partition("\nbench:")[2].partition("\n\n")[0]
    assert 0 < recipe.index("bench --check") < recipe.index("demo images")


def test_the_simulated_kubelet_reports_what_the_operator_takes_for_a_success() -> None:
    ends = next(s for s in yaml.safe_load_all(STAGES.read_text()) if s["metadata"]["name"] == "pod-succeeded")
    template = re.sub(r"\{\{.*?\}\}(?=\s|$)", "x", ends["spec"]["next"]["statusTemplate"])
    found = re.search(r"message: >-\n(.*?)\n\s+reason: Completed", template, re.DOTALL)
    assert found
    report = parse_report(" ".join(found[1].split()))
    assert report is not None
    assert report.outcome == "Succeeded"
    assert {"adapter", "model"} <= report.artifacts.keys()


@pytest.mark.parametrize(("rates", "met"), [([61.0, 20.0, 64.0], True), ([60.7, 60.7, 64.0], False)])
def test_labelling_is_judged_by_its_median_against_what_the_endpoint_can_give(rates: list[float], met: bool) -> None:
    assert labelling.LIMIT == 64
    throughput, cpu = labelling.judge(rates, 0.0015)
    assert throughput.met is met
    assert "of 64 answers/s" in throughput.value
    assert cpu.value == "1.50 ms"


def test_what_needs_no_cluster_runs_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "CLUSTER", SimpleNamespace(healthy=lambda: False))
    monkeypatch.setattr(labelling, "run", lambda: labelling.judge([64.0], 0.001))
    assert bench.main(["labelling"]) == 0
    assert "1.000x" in capsys.readouterr().out
    assert bench.main(["reconcile"]) == 2


def test_generated_data_are_the_same_each_time_and_some_of_them_doubles(tmp_path: Path) -> None:
    for name in "ab":
        data.generate(tmp_path / name / "train.jsonl", 200_000)
    first, second = ((tmp_path / name / "train.jsonl").read_text() for name in "ab")
    assert first == second
    assert 200_000 <= len(first) < 205_000
    lines = first.splitlines()
    assert 0 < len(lines) - len(set(lines)) < len(lines) / 5


@pytest.mark.parametrize(("large", "met"), [(119e6, True), (120.1e6, False)])
@pytest.mark.parametrize(("what", "place"), [("prepare", 0), ("label", 2)])
def test_memory_that_grows_with_the_data_is_a_missed_target(what: str, place: int, large: float, met: bool) -> None:
    rest = {"read": 1000.0, "kept": 900.0, "seconds": 10.0, "peak": 100e6}
    same = {"prepare": rest, "label": rest}
    found = data.table({data.SMALL: same, data.LARGE: same | {what: rest | {"peak": large}}})
    assert [figure.met for figure in found] == [met if index == place else True for index in range(4)]


@pytest.mark.parametrize(
    ("rounds", "met", "words"),
    [
        (
            [{"ours": 96.0, "plain": 100.0}, {"ours": 50.0, "plain": 40.0}, {"ours": 95.0, "plain": 100.0}],
            True,
            "0.960: 96 against 100 tokens a processor second in the median round of 3",
        ),
        ([{"ours": 94.0, "plain": 100.0}], False, "0.940: 94 against 100 tokens a processor second"),
        ([], False, "not measured"),
    ],
)
def test_training_is_judged_by_the_median_of_its_rounds(rounds: list[dict[str, float]], met: bool, words: str) -> None:
    (figure,) = training.judge(rounds)
    assert figure.met is met
    assert words in figure.value


def round_of(**rates: float) -> serving.Round:
    """Of requests a second; ``ours_8``: with eight clients."""
    named = {name.replace("_", ", "): rate for name, rate in rates.items()}
    return serving.Round(named, {name: 1 / rate for name, rate in named.items()})


@pytest.mark.parametrize(
    ("rates", "missed"),
    [
        ({}, set()), ({"ours_1": 89}, {"made: one client"}), ({"ours_1": 90}, set()),
        ({"foundry_8": 200}, {"made: 8 clients"}), ({"foundry_8": 199}, set()),
    ],
)  # fmt: skip
def test_the_runtime_is_judged_by_the_median_of_its_rounds(rates: dict[str, float], missed: set[str]) -> None:
    usual = {"loop": 100.0, "engine": 150.0, "ours_1": 95.0, "ours_8": 200.0, "foundry_1": 80.0, "foundry_8": 90.0}
    rounds = [round_of(**usual | rates), round_of(**usual | rates), round_of(**dict.fromkeys(usual, 1.0))]
    found = serving.judge("made", rounds)
    assert {figure.name for figure in found if not figure.met} == missed
    assert "against 100.0 requests/s" in found[0].value


def answered(tokens: int, status: str = "200 OK") -> bytes:
    body = json.dumps({"usage": {"completion_tokens": tokens}})
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([answered(3), answered(3)], None), ([answered(3), answered(4)], "has 4 tokens, 3 were asked for"),
        ([answered(3, "500 Oh")], "answered b'HTTP/1.1 500 Oh"), ([answered(3)], "has hung up"), ([], "has hung up"),
    ],
)  # fmt: skip
def test_clients_count_only_whole_answers_of_the_wanted_length(answers: list[bytes], words: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for answer in answers:
                    connection.recv(65536)
                    connection.sendall(answer[:20])
                    connection.sendall(answer[20:])
                connection.recv(65536)  # what is not read makes a reset of the end

        thread = threading.Thread(target=serve)
        thread.start()
        port = listening.getsockname()[1]
        asked = [serving.load.post(port, {"model": "m"})] * 2
        with pytest.raises(RuntimeError, match=words) if words else nullcontext():
            assert serving.load.requests_a_second(port, asked, 1, 3) > 0
        thread.join()


SAID = [{"parameters": 1000, "embeddings": 99}, {"half": 1840}, {"block": 128, "weights": 600, "packed": 500},
        {"block": 32, "weights": 700, "packed": 650}]  # fmt: skip
RATES = [{"FP32": 10.0, "BF16": 5.0, "INT4/32": 14.0, "INT4/128": 20.0}] * 3


@pytest.mark.parametrize(
    ("said", "rates", "missed"),
    [
        ([], [], set()),
        ([{"parameters": 1000, "embeddings": 100}], [], {"parameters, and those of embeddings"}),
        ([{"block": 128, "weights": 600, "packed": 501}], [], {"the layers of its image, with Zstd"}),
        ([], [RATES[0] | {"FP32": 10.1}] * 3, {"decoding in INT4, blocks of 32"}),
        ([], [RATES[0] | {"BF16": 15.0}] * 3, {"decoding in INT4, blocks of 32", "decoding in INT4, blocks of 128"}),
    ],
)
def test_decoding_is_judged_against_the_faster_way_of_pytorch(
    said: list[dict[str, Any]], rates: list[dict[str, float]], missed: set[str]
) -> None:
    by_what = {next(iter(line)) + str(line.get("block", "")): line for line in [*SAID, *said]}
    found = decode.judge(list(by_what.values()), rates or RATES, [25.0, 40.0, 40.0], 560)
    assert {figure.name for figure in found if not figure.met} == missed
    assert "20.0 against 40.0 tokens/s: 0.50x" in [figure.value for figure in found]


def test_sizes_are_told_against_fp16_as_it_is_and_against_fp16_that_is_compressed_too() -> None:
    said = [{"parameters": 10**8, "embeddings": 1}, {"half": 184_000_000},
            {"block": 128, "weights": 51_500_000, "packed": 46_000_000}]  # fmt: skip
    rates = [{"FP32": 10.0, "BF16": 5.0, "INT4/128": 20.0}]
    told = {figure.name: (figure.value, figure.target) for figure in decode.judge(said, rates, [25.0], 560)}
    assert told["FP16 itself: the layers of its image, with Zstd"][0].endswith("8.0% less")
    assert told["the layers of its image, with Zstd"] == (
        "46.0 MB against 200.0 MB in FP16: 77.0% less", "at least 75% below FP16"
    )  # fmt: skip
    assert told["the same, both with Zstd"] == ("46.0 MB against 184.0 MB in FP16: 75.0% less", "")


def test_a_format_that_was_not_made_has_missed_its_target() -> None:
    form = {"format": "GGUF", "precision": "INT4", "algorithm": "KQuant"}
    good, bad = backends.judge([
        form | {"similarity": 0.99875, "greedy": 0.5, "weights": 1_250_000}, form | {"failed": "no such architecture"},
    ])  # fmt: skip
    assert (good.name, good.met) == ("GGUF, INT4 by KQuant", True)
    assert good.target == "logits at least 0.9 similar to PyTorch's"
    assert good.value == "0.99875, 50% of greedy tokens, 1.2 MB"
    assert (bad.value, bad.met) == ("no such architecture", False)


def test_what_is_asked_of_a_format_is_what_the_quantizer_asks() -> None:
    from slm_quantizer.likeness import SIMILARITY

    assert backends.LEAST == SIMILARITY


def took(*processor: float) -> list[image.Took]:
    return [image.Took(9.0, seconds) for seconds in processor]


IMAGE = image.Measured(
    copies=took(2.0, 9.0, 1.0), pushes=took(2.6, 2.5, 9.0), known=took(9.0), alone=40_000_000, pushing=104_000_000,
    again=20_000, changed=21_000_000, pulled=21_000_000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, None),
        ({"pushes": took(2.7, 2.7, 1.0)}, 0),
        ({"pushing": 104_000_001}, 1),
        ({"again": 20_001}, 2),
        ({"changed": 21_000_001}, 3),
        ({"pulled": 21_000_001}, 4),
    ],
)
def test_an_image_is_judged_by_time_memory_and_what_goes_over_the_wire(
    change: dict[str, Any], missed: int | None
) -> None:
    found = image.judge(replace(IMAGE, **change))
    assert [figure.met for figure in found if figure.target] == [index != missed for index in range(5)]


@pytest.mark.parametrize(
    ("moved", "missed"),
    [((20_000, 1_050_000, 1_050_000), []), ((20_001, 0, 0), [0]), ((0, 1_050_001, 0), [1]), ((0, 0, 1_050_001), [2])],
)
def test_a_changed_adapter_is_judged_by_what_goes_over_the_wire(moved: tuple[int, int, int], missed: list[int]) -> None:
    found = adapters.judge(adapters.Measured(*moved))
    assert [index for index, figure in enumerate(found) if not figure.met] == missed


def test_the_adapters_that_are_measured_are_packed_as_a_quantizer_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "WEIGHTS", 1000)
    adapters.generate(tmp_path)
    titles = [layer.title for layer in layers(tmp_path / pushing.MODEL, "bench")]
    assert titles == ["weights", "settings", "adapter.greenhouse", "adapter.irrigation", "adapters", "graph"]
    assert listed(tmp_path / pushing.MODEL).keys() == set(adapters.NAMES)


def test_a_relay_counts_what_goes_both_ways() -> None:
    with FakeRegistry() as registry:
        registry.artifact("slm/a", {"x": b"y" * 50_000})
        with Relay(int(registry.host.rpartition(":")[2])) as relay:
            client = Registry(contract.Registry(plain_http=(f"127.0.0.1:{relay.port}",)))
            client._wire.request("GET", Access(f"127.0.0.1:{relay.port}", "slm/a", "pull", None), "manifests/latest")
            before = relay.received
            assert 0 < relay.sent < 1000 > before > 0
            digest = sha256(b"y" * 50_000)
            client._wire.request("GET", Access(f"127.0.0.1:{relay.port}", "slm/a", "pull", None), f"blobs/{digest}")
            assert 50_000 < relay.received - before < 51_000
