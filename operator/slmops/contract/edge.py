"""What runs on edge nodes: the server, the proof that an image is whole, the benchmark."""

from typing import Literal

from slmops.contract.base import Message
from slmops.contract.sources import Data, Run


class ServeDefaults(Message):
    """How the answers of a server are generated where a request does not say, where it is to differ from the model."""

    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None


class ServeRun(Message):
    """How the edge runtime serves a model image (its configuration file, not a Job)."""

    type: Literal["Serve"] = "Serve"
    model_name: str
    """Name that clients ask for."""
    model_path: str
    """Folder with ``genai_config.json``; found by looking for it below this path."""
    revision: str = ""
    engine: Literal["OnnxRuntimeGenAI", "FoundryLocal"] = "OnnxRuntimeGenAI"
    """What generates."""
    port: int = 8080
    max_queue: int = 32
    request_timeout_seconds: float = 60.0
    """From a request, with its time in the queue, to the last token of its answer; a stream that has begun ends with an
    error then."""
    max_length: int | None = None
    adapter: str | None = None
    """What answers where a request names the model alone."""
    defaults: ServeDefaults | None = None


class PullRun(Message):
    """Prove that a model image is on the node and whole: it is mounted; list its files and hash them."""

    type: Literal["Pull"] = "Pull"
    run: str
    model_path: str


class Target(Message):
    """A running server to measure."""

    name: Literal["stable", "candidate"]
    url: str
    """``http://<pod address>:<port>``, no path."""
    model: str


class BenchRun(Run):
    """Measure one or two servers on the same node, taking turns, so that both see the same node in the same minute."""

    type: Literal["Bench"] = "Bench"
    targets: tuple[Target, ...]
    data: Data
    """Prompts with the expected answers (exact match is measured where a record has one)."""
    warmup: int = 1
    """Rounds that are run and thrown away."""
    rounds: int = 3
    prompts: int = 20
    """Prompts a round."""
    max_tokens: int = 64
    concurrency: int = 1
    timeout_seconds: float = 60.0
    wait_seconds: float = 0.0
    """For servers that start together with the benchmark: so long they may take to be ready."""
    seed: int = 42
