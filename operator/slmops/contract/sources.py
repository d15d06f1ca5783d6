"""What every run is told: where bytes come from, and where results go."""

from enum import StrEnum

from slmops.contract.base import Message


class Credentials(Message):
    """A Secret's key mounted as a file; the value itself never appears in a message."""

    path: str
    """File inside the container: a token, or a ``config.json`` in Docker's format for registries."""


class Source(Message):
    """Where bytes come from: ``oci://``, ``https://``, ``hf://`` or ``pvc://`` (the scheme decides)."""

    uri: str
    credentials: Credentials | None = None


class ExampleFormat(StrEnum):
    """How one record of a data set looks."""

    MESSAGES = "Messages"
    """``{"messages": [{"role": "system"|"user"|"assistant", "content": str}, ...]}``"""
    PROMPT_COMPLETION = "PromptCompletion"
    """``{"prompt": str, "completion": str}``; the completion may be missing where only prompts are needed."""
    TEXT = "Text"
    """``{"text": str}``: learned as a whole, there is no prompt."""
    CLASSIFICATION = "Classification"
    """``{"text": str, "label": str}``: the text is the prompt, the label the answer; it may be missing, too."""


class Data(Message):
    """A data set: records in the given format, in JSON Lines (also packed with Zstandard), CSV or Parquet.

    Any record may say what it is about, in a field ``category``."""

    source: Source
    format: ExampleFormat
    path: str | None = None
    """File inside the artefact or directory, for example ``train.jsonl``; every ``*.jsonl``, ``*.jsonl.zst``, ``*.csv``
    and ``*.parquet`` when absent."""
    columns: dict[str, str] = {}
    """Field of the format -> its name in the files, where that is another."""
    labels: tuple[str, ...] = ()
    """The labels that there are (Classification): another one is refused. Any when empty."""


class Sink(Message):
    """A registry repository that a run pushes to; the digest it reports is the address of what it made."""

    repository: str
    """For example ``registry.example/slm/farm-assistant``, no tag."""
    credentials: Credentials | None = None


class Registry(Message):
    """How registries are reached."""

    plain_http: tuple[str, ...] = ()
    """Registry hosts (``host[:port]``) that speak HTTP without TLS: development clusters only."""


class Budget(Message):
    """What a run may still spend when it begins. Bounds that are absent do not bind."""

    gpus: int = 0
    """GPUs of the whole run."""
    gpu_hours: float | None = None
    hourly: float = 0.0
    """What an hour of the whole run costs."""
    cost: float | None = None
    currency: str = ""


class Run(Message):
    """What all runs share."""

    run: str
    """Name of the run: the Job's name. It goes into the artefacts' annotations."""
    registry: Registry = Registry()
    annotations: dict[str, str] = {}
    """Added to everything that is pushed (kind, name, generation of the resource that asked for it)."""
    image: str = ""
    """The image that runs, as the pod names it: it is part of what a result is made from."""
    budget: Budget | None = None
    """Checked once the pace is measured: a run that would pass it ends before the long part."""
