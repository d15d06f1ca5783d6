"""Benchmarks: figures of servers whose speed is known, and of servers that break, lie or never end.

Time is virtual: a server that takes 0.2 s takes exactly that.
"""

import asyncio
import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from slm_bench import asking as module
from slm_bench import statistics
from slm_bench.bench import bench
from slmkit.run import Context, RunFailed
from slmops.contract import BenchRun, Reason, Report, TargetFigures
from tests.unit import virtualnet
from tests.unit.images import volumes
from tests.unit.images.fakellm import FakeLLM, Reply, play
from tests.unit.images.test_machine import machine

ONCE = {"rounds": 1, "prompts": 1, "warmup": 0}


class Job:
    """A benchmark over prompts in a volume."""

    def __init__(self, folder: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.volume = volume
        self.root = folder / "root"
        """The node's files: it has none."""
        self.context = Context()
        self._folder, self._runs = folder, 0
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=virtualnet.now))
        monkeypatch.setattr(asyncio, "run", lambda main: play(lambda: main, *self._servers))
        monkeypatch.setattr(statistics, "RESAMPLES", statistics.FEWEST)  # how sure it is, is another test's affair
        self._servers: tuple[FakeLLM, ...] = ()
        self.give(*({"prompt": f"p{number}"} for number in range(40)))

    def give(self, *records: dict[str, str]) -> None:
        volumes.write(self.volume, "d", *records)

    def bench(self, stable: FakeLLM, candidate: FakeLLM | None = None, **fields: Any) -> Report:
        self._servers = (stable, candidate) if candidate else (stable,)
        self._runs += 1
        self.context.work = self._folder / f"work-{self._runs}"
        names = ("stable", "candidate")
        targets = [{"name": n, "url": s.url, "model": "m"} for n, s in zip(names, self._servers, strict=False)]
        wanted = {
            "run": "r", "targets": targets, "warmup": 1, "rounds": 3, "prompts": 3, "max_tokens": 64,
            "data": {"source": {"uri": "pvc://claim/"}, "format": "PromptCompletion"},
        }  # fmt: skip
        return bench(BenchRun.model_validate(wanted | fields), self.context, self.root)

    def figures(self, server: FakeLLM, **fields: Any) -> TargetFigures:
        return self.bench(server, **fields).targets["stable"]


@pytest.fixture
def job(tmp_path: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, volume, monkeypatch)


def refused(act: Callable[[], object]) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        act()
    return failed.value


def test_the_figures_are_those_of_the_server(job: Job) -> None:
    found = job.figures(FakeLLM(Reply("one two three four", delay=0.2, between=0.1)))
    assert [(r.time_to_first_token_seconds, r.request_seconds, r.tokens_per_second) for r in found.rounds] == [
        (0.2, 0.5, 8.0)
    ] * 3
    assert (found.time_to_first_token_p95_seconds, found.request_p95_seconds) == (0.2, 0.5)
    assert (found.requests, found.errors, found.exact_match) == (9, 0, None)


def test_slow_answers_show_in_the_95th_percentile_and_not_in_the_median(job: Job) -> None:
    slow = {"p3", "p14", "p15", "p36"}
    found = job.figures(
        FakeLLM(lambda text, time: Reply("a", delay=9.0 if text in slow else 1.0)), rounds=4, prompts=10
    )
    assert {r.request_seconds for r in found.rounds} == {1.0}
    assert found.request_p95_seconds == 9.0


def test_warm_up_rounds_do_not_count(job: Job) -> None:
    llm = FakeLLM()
    llm._choose = lambda text, time: Reply("a", delay=50.0 if len(llm.asked) <= 6 else 1.0)
    found = job.figures(llm, warmup=2)
    assert found.request_p95_seconds == 1.0
    assert (len(llm.asked), found.requests) == (21, 9)


def test_the_servers_take_turns_back_and_forth(job: Job) -> None:
    turns: list[str] = []

    def named(name: str) -> FakeLLM:
        return FakeLLM(lambda text, time: (turns.append(name), Reply(delay=0.1))[1])

    job.bench(named("A"), named("B"), warmup=2, rounds=2, prompts=2)
    assert "".join(turns) == "AABB" + "BBAA" + "AABBAA" + "AABBAA"


@pytest.mark.parametrize(
    ("prompts", "concurrency", "again"),
    [(1, 1, 1), (2, 1, 2), (7, 1, 2), (12, 1, 3), (20, 1, 5), (8, 4, 4), (8, 64, 8)],
)
def test_the_first_server_is_asked_some_prompts_again_before_or_after_all_others(
    job: Job, prompts: int, concurrency: int, again: int
) -> None:
    """So that what gets slower with time is no difference from itself."""
    first, other = FakeLLM(Reply(delay=0.1)), FakeLLM(Reply(delay=0.1))
    job.bench(first, other, warmup=0, rounds=2, prompts=prompts, concurrency=concurrency)
    once, twice = other.prompts()[:prompts], other.prompts()[prompts:]
    assert sorted(first.prompts()) == sorted(once + once[:again] + twice[:again] + twice)
    begun, ended = other.times()[0], other.times()[-1]
    assert len([time for time in first.times() if begun < time < ended]) == 2 * again
    assert len(other.asked) == 2 * prompts


def test_both_servers_get_the_same_prompts_and_other_ones_each_round(job: Job) -> None:
    a, b = FakeLLM(Reply(delay=0.1)), FakeLLM(Reply(delay=0.1))
    job.bench(a, b)
    assert set(a.prompts()) == set(b.prompts())
    assert len(set(b.prompts()[3:])) == 9
    again = FakeLLM(Reply(delay=0.1))
    job.bench(again, seed=43)
    assert set(again.prompts()) != set(b.prompts()), "another seed, other prompts"


def test_two_servers_are_compared_answer_by_answer(job: Job) -> None:
    """Each answer of the one takes a quarter longer than that of the other, however long that is."""

    def taking(factor: float) -> FakeLLM:
        return FakeLLM(lambda text, time: Reply("a b", delay=factor * (1 + int(text[1:]) % 7)))

    told = job.bench(taking(1.0), taking(1.25), rounds=4, prompts=5).statistics
    assert told is not None
    assert {(name, p.ratio, p.low, p.high, p.pairs) for name, p in told.paired.items()} == {
        ("TokensPerSecond", 0.8, 0.8, 0.8, 20),
        ("TimeToFirstToken", 1.25, 1.25, 1.25, 20),
        ("RequestLatency", 1.25, 1.25, 1.25, 20),
    }
    assert set(told.noise.values()) == {0.0}
    assert told.disturbances == ()


def test_a_server_that_is_asked_again_may_differ_and_only_the_noise_shows_it(job: Job) -> None:
    llm = FakeLLM(lambda text, time: Reply("yes", delay=1.0 if time == 1 else 3.0))
    job.give(*({"prompt": f"p{number}", "completion": "yes"} for number in range(40)))
    report = job.bench(llm, rounds=2, warmup=0, prompts=8)
    assert report.statistics is not None
    assert report.statistics.paired == {}, "there is nothing to compare with"
    assert report.statistics.noise["RequestLatency"] == 2.0
    assert report.targets["stable"].requests == 16
    first, second = report.targets["stable"].rounds
    assert (first.request_seconds, second.request_seconds) == (1.0, 1.0)


def test_a_server_that_errs_when_it_is_asked_again_has_no_errors(job: Job) -> None:
    report = job.bench(FakeLLM(lambda text, time: Reply("a", delay=0.1, status=200 if time == 1 else 500)), rounds=1,
                       warmup=0)  # fmt: skip
    assert report.statistics is not None
    assert (report.targets["stable"].errors, report.statistics.noise) == (0, {})


def test_what_happened_on_the_node_meanwhile_is_told(job: Job) -> None:
    """Load from before it began; heat and stolen time from the rounds that count."""

    def reply(text: str, time: int) -> Reply:
        machine(job.root, f"{len(llm.asked)}00 0 0 0 0 0 0 {len(llm.asked)}0", "0.0", (len(llm.asked),))
        return Reply("a", delay=0.1)

    llm = FakeLLM(reply)
    machine(job.root, "0 0 0 0 0 0 0 0", "8.0", (0,))
    told = job.bench(llm, warmup=5, rounds=2, prompts=2).statistics
    assert told is not None
    assert told.disturbances == (
        "load of 4.0 per CPU before it began",
        "9 % of the CPUs' time was stolen",
        "8 thermal throttling events",
    )


def test_few_prompts_are_used_again(job: Job) -> None:
    job.give({"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"})
    llm = FakeLLM(Reply(delay=0.1))
    assert job.bench(FakeLLM(Reply(delay=0.1)), llm, prompts=2, warmup=0).targets["candidate"].requests == 6
    assert llm.counts["a"] == llm.counts["b"] == llm.counts["c"] == 2
    assert job.figures(FakeLLM(Reply(delay=0.1)), prompts=50).requests == 9, "a round has no prompt twice"


@pytest.mark.parametrize("concurrency", [1, 4])
def test_requests_run_side_by_side_as_wanted(job: Job, concurrency: int) -> None:
    llm = FakeLLM(Reply("a b", delay=1.0))
    found = job.figures(llm, concurrency=concurrency, prompts=8, rounds=1, warmup=0)
    assert llm.together == concurrency
    assert {(r.request_seconds, r.tokens_per_second) for r in found.rounds} == {(1.0, 2.0)}


def test_a_request_is_a_greedy_stream(job: Job) -> None:
    llm = FakeLLM(Reply(delay=0.1))
    job.figures(llm, rounds=1, prompts=1)
    assert {(body["temperature"], body["stream"], body["max_tokens"], body["model"]) for _, body in llm.asked} == {
        (0, True, 64, "m")
    }


def stream(*events: bytes) -> Reply:
    """A stream that says these and then ends well."""
    return Reply(body=b"".join(b"data: " + event + b"\n\n" for event in (*events, b"[DONE]")))


def counted(tokens: object) -> Reply:
    return Reply(usage={"completion_tokens": tokens})


ERRORS: dict[str, Reply] = {
    "busy": Reply(status=429), "server error": Reply(status=500), "no model": Reply(status=404), "nothing": Reply(body=b""),
    "cut": Reply("a b", cut=1), "cut before all": Reply(cut=0), "ends early": Reply(done=False), "no JSON": stream(b"{"),
    "a number": stream(b"5"), "a list": stream(b"[]"), "a text": stream(b'"error"'), "no UTF-8": stream(b"\xff"),
    "no choices": stream(b'{"choices": null}'), "odd choices": stream(b'{"choices": [5]}'), "HTML": Reply(body=b"<html>"),
    "odd delta": stream(b'{"choices": [{"delta": 5}]}'), "an error": stream(b'{"error": {"message": "x"}}'),
    "deep": stream(b"[" * 100_000), "too slow": Reply(delay=61), "drop by drop": Reply("a b c d", between=25),
    "negative": counted(-5), "huge": counted(10**30), "more than asked for": counted(66), "a word": counted("5"),
    "NaN": counted(float("nan")), "infinite": counted(float("inf")), "null": counted(None), "a fraction": counted(1.5),
    "no count": Reply(usage={"total_tokens": 5}), "odd usage": Reply(usage=[1]),
}  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_an_answer_that_is_none_is_an_error_and_spoils_no_figure(job: Job, error: str) -> None:
    job.give(*({"prompt": str(number)} for number in range(4)))
    llm = FakeLLM(lambda text, time: ERRORS[error] if text == "3" else Reply("a b", delay=0.5))
    found = job.figures(llm, rounds=1, prompts=4, warmup=0)
    assert (found.requests, found.errors) == (4, 1)
    assert {(r.request_seconds, r.tokens_per_second) for r in found.rounds} == {(0.5, 4.0)}
    assert found.request_p95_seconds == 0.5


def test_an_answer_without_end_is_an_error(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT", 1000)
    once = {"rounds": 1, "prompts": 1, "warmup": 0}
    assert job.figures(FakeLLM(Reply("x" * 2000)), **once).errors == 1
    assert job.figures(FakeLLM(Reply(body=b"x" * 2000)), **once).errors == 1, "nor one of a single line"
    assert job.figures(FakeLLM(Reply("x" * 500, delay=0.1)), **once).errors == 0


def test_a_server_that_only_errs_has_no_figures(job: Job) -> None:
    found = job.figures(FakeLLM(Reply(status=500)), prompts=2)
    assert (found.requests, found.errors, found.rounds) == (6, 6, ())
    assert (found.request_p95_seconds, found.time_to_first_token_p95_seconds) == (None, None)


def test_a_server_that_does_not_count_is_counted_by_its_pieces(job: Job) -> None:
    found = job.figures(FakeLLM(Reply("a b c", delay=1.0, usage=None)), prompts=1)
    assert {r.tokens_per_second for r in found.rounds} == {3.0}


def test_letters_that_some_take_for_line_ends_are_part_of_the_text(job: Job) -> None:
    event = {"choices": [{"delta": {"content": "a\u2028b\x85c\x1dd"}}]}
    body = f"data:{json.dumps(event, ensure_ascii=False)}\r\n\r\ndata: [DONE]\r\n\r\n".encode()
    job.give({"prompt": "p1", "completion": "a\u2028b\x85c\x1dd"})
    found = job.figures(FakeLLM(Reply(body=body, delay=0.1)), rounds=1, warmup=0)
    assert (found.errors, found.exact_match) == (0, 1.0)


def test_right_answers_are_counted_among_those_that_are_known(job: Job) -> None:
    job.give(*({"prompt": f"p{n}", "completion": "right"} for n in range(8)), {"prompt": "p8"}, {"prompt": "p9"})
    replies = {"p0": Reply(status=500), "p1": Reply("wrong", delay=0.1), "p2": Reply(" right \n", delay=0.1)}
    llm = FakeLLM(lambda text, time: replies.get(text, Reply("right", delay=0.1)))
    found = job.figures(llm, rounds=2, prompts=5, warmup=0)
    assert found.exact_match == 0.75, "an error is no right answer"


@pytest.mark.parametrize(
    ("page", "peak"),
    [
        ("# HELP x\nslmops_runtime_peak_memory_bytes 1.2345e+08\nother 5\n", 123450000), ("", None),
        ("slmops_runtime_peak_memory_bytes NaN", None), ("slmops_runtime_peak_memory_bytes +Inf", None),
        ("slmops_runtime_peak_memory_bytes -5", None), ("slmops_runtime_peak_memory_bytes 1e300", None),
        ("slmops_runtime_peak_memory_bytes many", None), ("xslmops_runtime_peak_memory_bytes 5", None),
        ("slmops_runtime_peak_memory_bytes 0", None),
    ],
)  # fmt: skip
def test_memory_is_what_the_server_says_if_that_can_be(job: Job, page: str, peak: int | None) -> None:
    llm = FakeLLM(Reply(delay=0.1))
    llm.metrics = lambda: web.Response(text=page)
    assert job.figures(llm, rounds=1, prompts=1, warmup=0).peak_memory_bytes == peak


def test_memory_of_a_page_that_is_an_error_is_not_known(job: Job) -> None:
    llm = FakeLLM(Reply(delay=0.1))
    llm.metrics = lambda: web.Response(text="slmops_runtime_peak_memory_bytes 5", status=500)
    assert job.figures(llm, rounds=1, prompts=1, warmup=0).peak_memory_bytes is None


def test_a_server_that_is_not_there_is_named(job: Job) -> None:
    llm, broken = FakeLLM(), FakeLLM()
    broken.models = lambda time: web.Response(status=503)
    failed = refused(lambda: job.bench(llm, broken))
    assert failed.reason is Reason.TARGET_UNREACHABLE
    assert "candidate" in failed.message
    assert "503" in failed.message
    nobody = {"name": "stable", "url": "http://127.0.0.1:9", "model": "m"}
    failed = refused(lambda: job.bench(FakeLLM(), targets=[nobody]))
    assert failed.reason is Reason.TARGET_UNREACHABLE
    assert "http://127.0.0.1:9" in failed.message
    assert llm.asked == []


def test_a_server_that_starts_together_with_the_benchmark_is_waited_for(job: Job) -> None:
    llm = FakeLLM(Reply(delay=0.1))
    llm.ready_after = 7
    assert job.figures(llm, wait_seconds=60, **ONCE).requests == 1
    assert (llm.counts["/ready"], llm.counts["/models"]) == (8, 1)
    never = FakeLLM()
    never.ready_after, never.models = 1000, lambda time: web.Response(status=503)
    failed = refused(lambda: job.bench(never, wait_seconds=60, **ONCE))
    assert failed.reason is Reason.TARGET_UNREACHABLE
    assert 59 <= never.counts["/ready"] <= 61, "once a second, and no longer"


def test_a_page_without_end_or_packed_says_nothing_of_memory(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    page = b"slmops_runtime_peak_memory_bytes 5\n"
    monkeypatch.setattr(module, "PAGE_LIMIT", 1000)
    packed = {"Content-Encoding": "gzip"}
    for answer, peak in ({"body": page}, 5), ({"body": page * 30}, None), ({"body": gzip.compress(page),
                                                                            "headers": packed}, None):  # fmt: skip
        llm = FakeLLM(Reply(delay=0.1))
        llm.metrics = partial(web.Response, **answer)
        assert job.figures(llm, **ONCE).peak_memory_bytes == peak


def test_what_a_cluster_puts_into_the_environment_is_not_between_node_and_runtime(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert job.figures(FakeLLM(Reply(delay=0.1)), **ONCE).errors == 0


def test_a_server_whose_first_page_has_no_end_is_not_measured(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_LIMIT", 1000)
    llm = FakeLLM()
    llm.models = lambda time: web.Response(body=b"#" * 1001)
    assert refused(lambda: job.bench(llm)).reason is Reason.TARGET_UNREACHABLE
    assert llm.asked == []


def test_a_server_that_sends_its_clients_elsewhere_is_not_measured_there(job: Job) -> None:
    other = FakeLLM(Reply(delay=0.1))
    there = Reply(status=307, headers={"Location": f"{other.url}/v1/chat/completions"})
    found = job.bench(FakeLLM(there), other, **ONCE).targets
    assert (found["stable"].errors, found["candidate"].errors) == (1, 0)
    away = FakeLLM()
    away.models = lambda time: web.Response(status=307, headers={"Location": "/metrics"})
    assert "answered 307" in refused(lambda: job.bench(away)).message


def test_a_page_that_comes_drop_by_drop_is_not_waited_for(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    async def drops(llm: FakeLLM, request: web.Request) -> web.StreamResponse:
        seen.append(virtualnet.now())
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            for _ in range(1000):
                await asyncio.sleep(10)
                await answer.write(b"#")
        finally:
            seen.append(virtualnet.now())
        return answer

    monkeypatch.setattr(FakeLLM, "_metrics", drops)
    assert job.figures(FakeLLM(Reply(delay=0.1)), **ONCE).peak_memory_bytes is None
    assert seen[1] - seen[0] < 80, "a minute and a drop"


def test_whoever_is_told_to_stop_begins_no_other_round(job: Job) -> None:
    llm = FakeLLM(lambda text, time: (job.context.stopping.set(), Reply(delay=0.1))[1])
    assert refused(lambda: job.bench(llm)).reason is Reason.TERMINATED
    assert len(llm.asked) == 3


def test_progress_counts_rounds_of_servers(job: Job) -> None:
    seen: list[tuple[str, int, int]] = []

    def reply(text: str, time: int) -> Reply:
        now = job.context.progress
        seen.append((now.stage, now.step, now.of))
        return Reply(delay=0.1)

    job.bench(FakeLLM(reply), FakeLLM(reply), prompts=1)
    assert seen == [("Warmup", 0, 11), ("Warmup", 1, 11)] + [("Measuring", step, 9) for step in range(9)]


def test_no_prompt_is_a_failure_that_names_the_data(job: Job) -> None:
    job.give()
    failed = refused(lambda: job.bench(FakeLLM()))
    assert failed.reason is Reason.INVALID_DATA
    assert "pvc://claim/" in failed.message
