"""Who labels a Distillation's prompts, and how it is asked."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Duration, Rule, exactly_one_of
from slmops.api.generation import Temperature, TopP
from slmops.api.sources import ModelSource, SecretKey

URL = r"^https?://[A-Za-z0-9][^\s/@]*(/[^\s]*)?$"


AZURE_VERSION = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?$"


Task = Literal["Conversation", "NLI", "NLUQuestionAnswering", "Math", "Summarization"]
"""Those of Azure ML's distillation."""


class Endpoint(ApiModel):
    """A server with the OpenAI API."""

    url: Annotated[str, Field(pattern=URL, max_length=512)]
    """Base address including /v1, for example https://api.deepseek.com/v1."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of the model as the server knows it."""
    credentials: SecretKey | None = None
    """Secret with the API key."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests in flight."""
    timeout: Duration = "60s"
    """Time that one request may take, until the last byte of its answer; then it counts as failed and is repeated."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Further attempts of a request that fails for a reason that may pass: no connection, a broken answer, the timeout,
    status 408, 413, 425, 429, 500, 502, 503, 504. The pause doubles each time, with jitter, and is at least what the
    server's Retry-After asks for."""
    startup_timeout: Duration = "5m"
    """How long a server that does not answer yet is waited for, before the attempt counts as failed."""
    min_success_ratio: Annotated[float, Field(ge=0, le=1)] = 0.7
    """The run fails when fewer of the prompts than this get an answer."""
    azure_api_version: Annotated[str, Field(pattern=AZURE_VERSION, max_length=32)] | None = None
    """For Azure OpenAI: version of its API, for example 2024-10-21. url is then the deployment's address,
    https://NAME.openai.azure.com/openai/deployments/DEPLOYMENT, and the key goes into the header api-key."""


class Sampling(ApiModel):
    """How the teacher answers; names and ranges are those of the OpenAI API."""

    rules: ClassVar = (
        Rule(
            "!has(self.samples) || self.samples == 1 || !has(self.temperature) || self.temperature > 0.0",
            "several samples need a temperature above 0: without one they are all the same",
            "samples",
        ),
    )

    temperature: Temperature = 0.7
    """Randomness; 0 takes the likeliest token."""
    top_p: TopP = 0.95
    """Share of the probability mass that is sampled from."""
    max_tokens: Annotated[int, Field(ge=1, le=32768)] = 512
    """Longest answer."""
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=4)] = []
    """Texts that end an answer."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Above 0 a token gets less likely each time that it appears."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Above 0 a token gets less likely once it has appeared."""
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    """Answers to each prompt. Each that differs from the others becomes a record."""


class Prompt(ApiModel):
    """What the teacher is told besides the record."""

    rules: ClassVar = (
        Rule(
            "!has(self.chainOfThought) || !has(self.chainOfDensity) || !(self.chainOfThought && self.chainOfDensity)",
            "set chainOfThought or chainOfDensity, not both",
        ),
        Rule(
            "!has(self.maxSummaryLength) || (has(self.chainOfDensity) && self.chainOfDensity)",
            "maxSummaryLength goes with chainOfDensity",
            "maxSummaryLength",
        ),
    )

    system: Annotated[str, Field(max_length=16384)] | None = None
    """System message put before each prompt."""
    chain_of_thought: bool = False
    """The teacher reasons step by step before it answers. The student is trained on the answer alone, and on the prompt
    without this. Goes with task NLI, NLUQuestionAnswering and Math."""
    chain_of_density: bool = False
    """The teacher writes a summary in five rounds, each time with more in the same length. The student is trained on the
    last one alone. Goes with task Summarization."""
    max_summary_length: Annotated[int, Field(ge=10, le=2000)] | None = None
    """Words of a summary with chainOfDensity; 80 when absent."""


class Teacher(ApiModel):
    """Who answers: a server, or weights that run inside the Job."""

    rules: ClassVar = (
        exactly_one_of("endpoint", "model"),
        Rule("!has(self.engine) || has(self.model)", "engine goes with model: an endpoint has its own", "engine"),
    )

    endpoint: Endpoint | None = None
    """A server with the OpenAI API."""
    model: ModelSource | None = None
    """Weights that are loaded inside the Job."""
    engine: Literal["Transformers", "VLLM"] | None = None
    """What runs the weights. Transformers (when absent) runs on CPUs and GPUs; VLLM is faster, needs a GPU and an image
    with vLLM in labelling.image."""
    sampling: Sampling = Sampling()
    """How the teacher answers."""
    prompt: Prompt = Prompt()
    """What the teacher is told besides the record."""


def goes_with(flag: str, *tasks: str) -> Rule:
    """A way to ask that makes sense for some tasks only."""
    field = f"self.teacher.prompt.{flag}"
    return Rule(
        f"!has(self.teacher.prompt) || !has({field}) || !{field} || (has(self.task) && self.task in {list(tasks)})",
        f"{flag} goes with task {', '.join(tasks)}",
        f"teacher.prompt.{flag}",
    )
