"""Where models and data come from, and where results go."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Name, Rule, exactly_one_of

URI = r"^(hf://[A-Za-z0-9][^\s]*|(oci|https|http|pvc)://[A-Za-z0-9][^\s/@]*(/[^\s]*)?)$"


FILE = r"^[A-Za-z0-9_][-A-Za-z0-9._]*(/[A-Za-z0-9_][-A-Za-z0-9._]*)*$"


OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


DATA_KEY = r"^[-._a-zA-Z0-9]+$"


REPOSITORY = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$"


DIGEST_REFERENCE = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}$"


Uri = Annotated[str, Field(pattern=URI, max_length=512)]


class SecretKey(ApiModel):
    """A key of a Secret in the same namespace. It is mounted into the Job; the operator never reads it."""

    secret: Annotated[str, Field(min_length=1, max_length=253, pattern=OBJECT_NAME)]
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=DATA_KEY)] | None = None
    """Key in the Secret; `.dockerconfigjson` for registries and `token` for everything else when absent."""


class Reference(ApiModel):
    """Another slmops resource in the same namespace."""

    name: Name
    """Name of the resource."""


class ModelSource(ApiModel):
    """Where a model comes from: an address, or the result of another resource."""

    rules: ClassVar = (
        exactly_one_of("uri", "distillation", "fineTune"),
        Rule("!has(self.credentials) || has(self.uri)", "credentials go with uri"),
    )

    uri: Uri | None = None
    """Address of a model in safetensors format: oci://repository[:tag|@sha256:…], hf://org/name[@revision],
    https://…, pvc://claim/path. Tags and revisions are resolved to a digest once."""
    distillation: Reference | None = None
    """The student of a Distillation, once it has succeeded."""
    fine_tune: Reference | None = None
    """The merged model of a FineTune, once it has succeeded."""
    credentials: SecretKey | None = None
    """Secret to read the address with."""


class DataSource(ApiModel):
    """A data set: JSON Lines, one record a line."""

    uri: Uri
    """Address of the data: oci://repository[:tag|@sha256:…] of an artefact that holds *.jsonl files, https:// of one
    such file, hf:// or pvc://claim/path."""
    path: Annotated[str, Field(max_length=256, pattern=FILE)] | None = None
    """File inside the artefact or folder, for example train.jsonl. All *.jsonl files when absent."""
    format: Literal["Messages", "PromptCompletion"] = "Messages"
    """How a record looks: Messages is {"messages": [{"role": …, "content": …}, …]}, PromptCompletion is
    {"prompt": …, "completion": …}."""
    credentials: SecretKey | None = None
    """Secret to read the address with."""


Share = Annotated[float, Field(ge=0.01, le=0.5)]


class Output(ApiModel):
    """Where results are published."""

    repository: Annotated[str, Field(pattern=REPOSITORY, max_length=255)]
    """OCI repository without tag, for example registry.example/slm/farm-assistant."""
    credentials: SecretKey | None = None
    """Secret of type kubernetes.io/dockerconfigjson with the right to push."""
