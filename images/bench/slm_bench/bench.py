"""A benchmark run: one or two servers, the same prompts, taking turns."""

import asyncio
import itertools
import json
import random
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import httpx

from slmkit.data import Example, read_examples
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import LARGEST, BenchRun, Reason, Report, Round, Target, TargetFigures

ANSWER_LIMIT, PAGE_LIMIT = 16 << 20, 1 << 20
"""Bytes of one answer, and of a page of metrics."""
AS_IT_IS = {"Accept-Encoding": "identity"}
"""What is packed in transit would cost the time that is measured, and unpack to what nobody can count beforehand."""
PEAK = re.compile(r"^slmops_runtime_peak_memory_bytes (\S+)$", re.MULTILINE)


@dataclass
class Answer:
    """One request's outcome."""

    first_token: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    text: str = ""
    error: str | None = None


@dataclass
class Seen:
    """All that was seen of one target."""

    rounds: list[Round] = field(default_factory=list)
    answers: list[tuple[Example, Answer]] = field(default_factory=list)
    peak: int | None = None


def bench(run: BenchRun, context: Context) -> Report:
    """Measure."""
    context.stage("Fetching")
    folder = context.work / "data"
    registry = Registry(run.registry, meter=context)
    context.inputs["data"] = fetch(run.data.source, folder, registry, "dataset", run.data.path)
    examples = list(itertools.islice(read_examples(run.data, folder), 100_000))
    if not examples:
        raise RunFailed(Reason.INVALID_DATA, f"{run.data.source.uri}: no record")
    examples = random.Random(run.seed).sample(examples, min(len(examples), run.prompts * run.rounds))  # noqa: S311
    seen = asyncio.run(_measure(run, examples, context))
    return Report(outcome="Succeeded", targets={name: _figures(found) for name, found in seen.items()})


async def _measure(run: BenchRun, examples: Sequence[Example], context: Context) -> dict[str, Seen]:
    limits = httpx.Limits(max_connections=run.concurrency + 1)
    # A proxy, certificates or passwords that a cluster puts into every pod's environment are not between a node and its
    # own runtime, and a redirect would have somebody else measured.
    async with httpx.AsyncClient(timeout=run.timeout_seconds, limits=limits, headers=AS_IT_IS, trust_env=False,
                                 follow_redirects=False) as client:  # fmt: skip
        for target in run.targets:
            await _reach(client, target, run.timeout_seconds)
        seen: dict[str, Seen] = {target.name: Seen() for target in run.targets}
        turns = run.warmup + run.rounds
        context.stage("Warmup" if run.warmup else "Measuring", of=turns * len(run.targets))
        done = 0
        for turn in range(turns):
            if turn == run.warmup and run.warmup:
                context.stage("Measuring", of=run.rounds * len(run.targets))
                done = 0
            chosen = _of_round(examples, turn - run.warmup, run)
            # Back and forth (A B, B A, …): what gets slower with time gets slower for both.
            for target in run.targets if turn % 2 == 0 else reversed(run.targets):
                context.check()
                answers = await _round(client, run, target, chosen)
                if turn >= run.warmup:
                    _take(seen[target.name], chosen, answers)
                done += 1
                context.step(done)
        for target in run.targets:
            seen[target.name].peak = await _peak(client, target, run.timeout_seconds)
    return seen


def _of_round(examples: Sequence[Example], turn: int, run: BenchRun) -> list[Example]:
    """A round's prompts: other ones each round, as long as there are any."""
    start = max(turn, 0) * run.prompts
    return [examples[(start + i) % len(examples)] for i in range(min(run.prompts, len(examples)))]


async def _reach(client: httpx.AsyncClient, target: Target, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds), client.stream("GET", f"{target.url}/v1/models") as answer:
            async for _ in _parts(answer, PAGE_LIMIT):
                pass  # read to its end, so that the connection can be used again
    except (httpx.HTTPError, TimeoutError, ValueError) as error:
        raise RunFailed(Reason.TARGET_UNREACHABLE, f"{target.name} at {target.url}: {type(error).__name__}") from None
    if not answer.is_success:
        raise RunFailed(Reason.TARGET_UNREACHABLE, f"{target.name} at {target.url} answered {answer.status_code}")


async def _round(client: httpx.AsyncClient, run: BenchRun, target: Target, examples: Sequence[Example]) -> list[Answer]:
    gate = asyncio.Semaphore(run.concurrency)

    async def one(example: Example) -> Answer:
        async with gate:
            return await ask(client, run, target, example)

    return list(await asyncio.gather(*(one(example) for example in examples)))


async def ask(client: httpx.AsyncClient, run: BenchRun, target: Target, example: Example) -> Answer:
    """One streamed request."""
    body = {"model": target.model, "messages": list(example.prompt), "max_tokens": run.max_tokens, "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    answer, begun, finished = Answer(), time.perf_counter(), False
    text: list[str] = []
    tokens: int | None = None
    try:
        async with (
            asyncio.timeout(run.timeout_seconds),
            client.stream("POST", f"{target.url}/v1/chat/completions", json=body) as stream,
        ):
            if stream.status_code != 200:
                return Answer(error=f"status {stream.status_code}")
            async for line in _lines(stream):
                if not line.startswith(b"data:"):
                    continue
                if (data := line[5:].strip()) == b"[DONE]":
                    finished = True
                    break
                event = json.loads(data)
                if "error" in event:
                    return Answer(error=str(event["error"])[:200])
                if event.get("usage"):
                    tokens = _count(event["usage"]["completion_tokens"], run.max_tokens)
                for choice in event.get("choices", []):
                    if piece := (choice.get("delta") or {}).get("content"):
                        if not text:
                            answer.first_token = time.perf_counter() - begun
                        text.append(str(piece))
    except (
        httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
    ) as error:  # fmt: skip
        return Answer(error=type(error).__name__)
    if not finished:
        return Answer(error="the stream ended early")
    answer.seconds = time.perf_counter() - begun
    answer.text = "".join(text)
    answer.tokens = len(text) if tokens is None else tokens
    answer.first_token = answer.first_token or answer.seconds
    return answer


async def _lines(stream: httpx.Response) -> AsyncIterator[bytes]:
    """Lines as server-sent events have them: httpx would also cut at U+2028 and others, in the middle of a text."""
    rest = b""
    async for part in _parts(stream, ANSWER_LIMIT):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.strip()


async def _parts(stream: httpx.Response, most: int) -> AsyncIterator[bytes]:
    """What comes, as it comes: nothing is unpacked. Raises ValueError beyond ``most`` bytes."""
    size = 0
    async for part in stream.aiter_raw():
        size += len(part)
        if size > most:
            raise ValueError("an answer without end")
        yield part


def _count(tokens: object, most: int) -> int:
    """What a server says about itself; one more than asked for is the token that ends an answer."""
    if not isinstance(tokens, int) or not 0 <= tokens <= most + 1:
        raise ValueError("no number of tokens")
    return tokens


def _take(seen: Seen, examples: Sequence[Example], answers: Sequence[Answer]) -> None:
    seen.answers += zip(examples, answers, strict=True)
    good = [answer for answer in answers if answer.error is None]
    if good:
        seen.rounds.append(
            Round(
                time_to_first_token_seconds=_digits(median(a.first_token for a in good)),
                tokens_per_second=_digits(sum(a.tokens for a in good) / sum(a.seconds for a in good)),
                request_seconds=_digits(median(a.seconds for a in good)),
            )
        )


def _figures(seen: Seen) -> TargetFigures:
    good = [(example, answer) for example, answer in seen.answers if answer.error is None]
    golden = [(e, a) for e, a in seen.answers if e.completion is not None]
    right = sum(a.error is None and a.text.strip() == (e.completion or "").strip() for e, a in golden)
    return TargetFigures(
        rounds=tuple(seen.rounds),
        time_to_first_token_p95_seconds=percentile([a.first_token for _, a in good], 95),
        request_p95_seconds=percentile([a.seconds for _, a in good], 95),
        requests=len(seen.answers),
        errors=len(seen.answers) - len(good),
        exact_match=_digits(right / len(golden)) if golden else None,
        peak_memory_bytes=seen.peak,
    )


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Nearest rank; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return _digits(ordered[min(len(ordered) - 1, -(-percent * len(ordered) // 100) - 1)])


async def _peak(client: httpx.AsyncClient, target: Target, seconds: float) -> int | None:
    try:
        async with asyncio.timeout(seconds), client.stream("GET", f"{target.url}/metrics") as answer:
            page = b"".join([part async for part in _parts(answer, PAGE_LIMIT)]).decode(errors="replace")
        found = PEAK.search(page)
        peak = int(float(found[1])) if found and answer.is_success else None
    except (httpx.HTTPError, TimeoutError, ValueError, OverflowError):
        return None
    return peak if peak is not None and 0 < peak < LARGEST else None


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
