"""What every run is told: where bytes come from, and where results go."""

from enum import StrEnum

from slmops.contract.base import Message
from slmops.contract.keyless import Identity

NODE = ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fe80::/10", "fd00:ec2::/32",
        "fd20:ce::254/128")  # fmt: skip
"""A node's own link, and the addresses beside it where clouds (Alibaba, Azure, Oracle, Amazon, Google) keep the node's
credentials. No run asks there."""


class Credentials(Message):
    """A Secret's key mounted as a file; the value itself never appears in a message."""

    path: str
    """File inside the container: a token, or a ``config.json`` in Docker's format for registries. For ``s3://`` the
    folder with a file a key (``AWS_ACCESS_KEY_ID``, …)."""


class LicensePolicy(Message):
    """Which licences a model may have: SPDX identifiers, or ``LicenseRef-…`` for what SPDX does not list."""

    allow: tuple[str, ...] = ()
    """Only these, when there are any; a model without a known licence is refused then."""
    deny: tuple[str, ...] = ()
    """None of these."""


class Verify(Message):
    """What something has to show before any of it is fetched: a signature as cosign makes them, by a key or by an
    identity. Exactly one of the two is set."""

    key: str | None = None
    """File with the public key, in PEM."""
    identity: Identity | None = None
    provenance: bool = False
    """It also needs a provenance statement that is signed by the same."""


class Source(Message):
    """Where bytes come from: ``oci://``, ``https://``, ``hf://``, ``s3://`` or ``pvc://`` (the scheme decides)."""

    uri: str
    credentials: Credentials | None = None
    endpoint: str | None = None
    """``s3://`` alone: the server's address, ``https://host[:port]``; Amazon's when absent."""
    license_policy: LicensePolicy | None = None
    """Models alone: refused before anything is done with them unless their licence is let in."""
    verify: Verify | None = None
    """``oci://`` alone: refused before it is fetched unless it is signed."""


class ExampleFormat(StrEnum):
    """How one record of a data set looks."""

    MESSAGES = "Messages"
    """``{"messages": [{"role": "system"|"user"|"assistant", "content": str}, ...]}``"""
    PROMPT_COMPLETION = "PromptCompletion"
    """``{"prompt": str, "completion": str, "rejected": str}``; the completion may be missing where only prompts are
    needed, and ``rejected``, a worse answer, where no loss compares answers."""
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
    """Hosts (``host[:port]``) that speak HTTP without TLS, registries or others: development clusters only."""


class Peer(Message):
    """Who may be connected to."""

    host: str
    """A name, ``*.`` and the end of names, an address, or a range of addresses (CIDR)."""
    port: int
    listed: bool = False
    """Whether the resource lists it in so many words: then its address may be a private one."""


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
    egress: tuple[Peer, ...] | None = None
    """Who the run may connect to: whom its sources and its output name, and whom the resource lists. Anybody whose
    address is public, and whom the run itself names, when absent."""
