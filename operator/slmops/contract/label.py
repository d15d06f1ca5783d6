"""A labelling run: a teacher answers prompts."""

from typing import Literal

from slmops.contract.base import Message
from slmops.contract.filters import Filters
from slmops.contract.sources import Credentials, Data, Run, Sink, Source


class Sampling(Message):
    """How a teacher answers; the names and ranges are those of the OpenAI API."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    samples: int = 1
    """Answers to each prompt, each with a seed of its own."""


class Endpoint(Message):
    """An OpenAI-compatible server."""

    url: str
    """Base URL including ``/v1``."""
    model: str
    credentials: Credentials | None = None
    concurrency: int = 8
    timeout_seconds: float = 60.0
    """Of one request, from its first byte to the answer's last."""
    retries: int = 3
    """Further attempts of a request that failed for a reason that may pass."""
    azure_api_version: str | None = None
    """Set: the server is an Azure OpenAI deployment, which wants this in the query, and the key in another header."""
    startup_seconds: float = 300.0
    """How long a server that does not answer yet is waited for."""
    min_success_ratio: float = 0.7


class LabelRun(Run):
    """Have a teacher answer every prompt of a data set, and publish the answers as a data set.

    The result holds ``train.jsonl`` and ``validation.jsonl`` in Messages format. Exactly one of ``endpoint`` and
    ``model`` is set.
    """

    type: Literal["Label"] = "Label"
    endpoint: Endpoint | None = None
    model: Source | None = None
    engine: Literal["Transformers", "VLLM"] = "Transformers"
    """What runs the weights of ``model``."""
    sampling: Sampling = Sampling()
    system_prompt: str | None = None
    chain_of_thought: bool = False
    """The teacher reasons before it answers; only the answer becomes a record."""
    chain_of_density: bool = False
    """The teacher writes a summary in five rounds; only the last becomes a record."""
    max_summary_words: int = 80
    """With ``chain_of_density``."""
    task: Literal["Conversation", "NLI", "NLUQuestionAnswering", "Math", "Summarization"] | None = None
    """With its limits: at least 65 records (40 for Math), one user's message a record except in conversations."""
    train: Data
    validation: Data | None = None
    validation_split: float = 0.1
    """Share of ``train`` held out when ``validation`` and ``evaluation`` are absent; chosen by hash of the prompt, so it is
    stable."""
    evaluation: Data | None = None
    """Records that the student is measured by, where they are of their own: the teacher is judged by the same ones."""
    evaluation_samples: int = 500
    """At most this many of them, chosen by seed as for the student."""
    filters: Filters = Filters()
    """Which prompts are not asked, and which answers are dropped."""
    seed: int = 42
    output: Sink
