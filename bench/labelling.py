"""``python -m bench labelling``: how much of a teacher's throughput the labelling uses.

The teacher is a server in a process of its own that answers each request after the same time, any number of them at once.
With so many requests in flight nobody can get more out of it than concurrency / latency, whatever the client does. The
labelling asks it as a run does: journal on disk, tokens counted, progress told.
"""

import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from aiohttp import web

from bench.figures import Figure
from bench.process import Process
from demo.steps import wait_for
from slm_trainer.label.answers import Question, question
from slm_trainer.label.endpoint import ask_all
from slm_trainer.label.journal import Journal
from slmkit.run import Context
from slmops.contract import Endpoint, Sampling

LATENCY = 0.5
"""Seconds. Short for a large teacher, which makes it harder for the client."""
CONCURRENCY = 32
ROUNDS = 3
REQUESTS = 20 * CONCURRENCY
"""Each round: ten seconds at the limit."""
TARGET = 0.95
LIMIT = CONCURRENCY / LATENCY
ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "an answer " * 40}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 200, "completion_tokens": 80},
}  # fmt: skip
ROOT = Path(__file__).parents[1]


def run() -> list[Figure]:
    """Measure. Each round asks other questions, so that none is answered by the journal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "bench.labelling", str(port)]
        with Process("teacher", command, environment, Path(folder, "log")) as teacher:
            wait_for("the simulated teacher", lambda: _answers(port), 30)
            before = time.process_time()
            rates = [asyncio.run(_round(port, Path(folder), number)) for number in range(ROUNDS)]
            cpu = (time.process_time() - before) / (ROUNDS * REQUESTS)
            teacher.check()
    return judge(rates, cpu)


def judge(rates: list[float], cpu: float) -> list[Figure]:
    """The figures: the median of the rounds against the limit, and the seconds of CPU time that an answer took us."""
    rate = statistics.median(rates)
    value = (f"{rate:.1f} of {LIMIT:.0f} answers/s: {rate / LIMIT:.3f}x ({min(rates):.1f} to {max(rates):.1f}; "
             f"{CONCURRENCY} in flight, {LATENCY} s each)")  # fmt: skip
    target = f"at least {TARGET}x of the endpoint's limit"
    return [
        Figure("labelling throughput", target, value, rate >= TARGET * LIMIT),
        Figure("labelling's CPU per answer", "", f"{cpu * 1000:.2f} ms"),
    ]


async def _round(port: int, folder: Path, number: int) -> float:
    """Answers a second, from the first request to the last answer."""
    endpoint = Endpoint(url=f"http://127.0.0.1:{port}/v1", model="m", concurrency=CONCURRENCY)
    questions = [_question(f"{number}: {index}") for index in range(REQUESTS)]
    with Journal(folder / f"answers-{number}.jsonl") as journal:
        begun = time.perf_counter()
        troubles = await ask_all(endpoint, Sampling(), questions, journal, Context(Path(folder)))
        elapsed = time.perf_counter() - begun
    if troubles:
        raise RuntimeError(f"the simulated teacher failed {len(troubles)} times: {next(iter(troubles.values()))}")
    return REQUESTS / elapsed


def _question(text: str) -> Question:
    return question("m", ({"role": "user", "content": f"{text} {'word ' * 150}"},), Sampling(), 0)


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def serve(port: int) -> None:
    """The teacher."""
    body = json.dumps(ANSWER).encode()

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(LATENCY)
        return web.Response(body=body, content_type="application/json")

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
