"""One server, asked over HTTP. It is untrusted: what it says is bounded, and what is none is an error of its own."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import httpx

from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import BENCHMARK_HEADER, LARGEST, BenchRun, Reason, Target

ANSWER_LIMIT, PAGE_LIMIT = 16 << 20, 1 << 20
"""Bytes of one answer, and of a page of metrics."""
HEADERS = {"Accept-Encoding": "identity", BENCHMARK_HEADER: "yes"}
"""What is packed in transit would cost the time that is measured, and unpack to what nobody can count beforehand. The
server is told that no user asks: these prompts are none that it should be watched by."""
PEAK = re.compile(r"^slmops_runtime_peak_memory_bytes (\S+)$", re.MULTILINE)


@dataclass
class Answer:
    """One request's outcome."""

    first_token: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    text: str = ""
    error: str | None = None


async def reach(client: httpx.AsyncClient, target: Target, seconds: float, wait: float = 0.0) -> None:
    """Ask for its models once, so that the connection is there; before that for so long as it may take to be ready."""
    if wait:
        await _ready(client, target, wait)
    try:
        async with asyncio.timeout(seconds), client.stream("GET", f"{target.url}/v1/models") as answer:
            async for _ in _parts(answer, PAGE_LIMIT):
                pass  # read to its end, so that the connection can be used again
    except (httpx.HTTPError, TimeoutError, ValueError) as error:
        raise RunFailed(Reason.TARGET_UNREACHABLE, f"{target.name} at {target.url}: {type(error).__name__}") from None
    if not answer.is_success:
        raise RunFailed(Reason.TARGET_UNREACHABLE, f"{target.name} at {target.url} answered {answer.status_code}")


async def _ready(client: httpx.AsyncClient, target: Target, wait: float) -> None:
    """Until it says so, or so many seconds have passed: then it is asked all the same, and what is wrong is told."""
    with suppress(TimeoutError):
        async with asyncio.timeout(wait):
            while not await _is_ready(client, target):  # noqa: ASYNC110  (another process's state)
                await asyncio.sleep(1)


async def _is_ready(client: httpx.AsyncClient, target: Target) -> bool:
    try:
        async with client.stream("GET", f"{target.url}/ready") as answer:
            return answer.is_success
    except httpx.HTTPError:
        return False


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


async def peak(client: httpx.AsyncClient, target: Target, seconds: float) -> int | None:
    try:
        async with asyncio.timeout(seconds), client.stream("GET", f"{target.url}/metrics") as answer:
            page = b"".join([part async for part in _parts(answer, PAGE_LIMIT)]).decode(errors="replace")
        found = PEAK.search(page)
        peak = int(float(found[1])) if found and answer.is_success else None
    except (httpx.HTTPError, TimeoutError, ValueError, OverflowError):
        return None
    return peak if peak is not None and 0 < peak < LARGEST else None
