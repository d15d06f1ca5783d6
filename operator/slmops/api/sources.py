"""Where models and data come from, and where results go."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import DATA_KEY, ApiModel, Name, ObjectName, Rule, exactly_one_of
from slmops.api.signing import Signing, Verification

URI = r"^(hf://[A-Za-z0-9][^\s]*|(oci|https|http|s3|pvc)://[A-Za-z0-9][^\s/@]*(/[^\s]*)?)$"


ENDPOINT = r"^https?://[A-Za-z0-9][^\s/@]*$"


LICENSE = r"^[A-Za-z0-9][-A-Za-z0-9.+]*$"


FILE = r"^[A-Za-z0-9_][-A-Za-z0-9._]*(/[A-Za-z0-9_][-A-Za-z0-9._]*)*$"


REPOSITORY = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$"


DIGEST_REFERENCE = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}$"


Uri = Annotated[str, Field(pattern=URI, max_length=512)]


class SecretKey(ApiModel):
    """A key of a Secret in the same namespace. It is mounted into the Job; the operator never reads it."""

    secret: ObjectName
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=DATA_KEY)] | None = None
    """Key in the Secret; `.dockerconfigjson` for registries and `token` for everything else when absent. Not for s3://,
    which reads AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where they are there, AWS_SESSION_TOKEN and AWS_REGION."""


ENDPOINT_RULE = Rule(
    "!has(self.endpoint) || (has(self.uri) && self.uri.startsWith('s3://'))",
    "endpoint goes with an s3:// uri",
    "endpoint",
)
KEYS_RULE = Rule(
    "!has(self.uri) || !self.uri.startsWith('s3://') || !has(self.credentials) || !has(self.credentials.key)",
    "s3:// reads the standard keys of the Secret, AWS_ACCESS_KEY_ID and its like: leave key out",
    "credentials",
)
DIGEST_RULE = Rule(
    "!has(self.uri) || !self.uri.contains('#') || self.uri.matches('^(https?|s3|pvc)://[^#]*#sha256=[0-9a-f]{64}$')",
    "after # a digest is expected, with https://, s3:// and pvc:// alone: #sha256= and 64 hexadecimal digits",
    "uri",
)


LicenseName = Annotated[str, Field(pattern=LICENSE, min_length=1, max_length=64)]


class LicensePolicy(ApiModel):
    """Which licences base, student and teacher may have. Names are SPDX identifiers (MIT, Apache-2.0), or
    LicenseRef-<name> for licences that SPDX has no identifier for (LicenseRef-gemma)."""

    rules: ClassVar = (Rule("has(self.allow) || has(self.deny)", "set allow, deny, or both"),)

    allow: Annotated[list[LicenseName], Field(min_length=1, max_length=64)] | None = None
    """Only these. A model whose licence is not known is refused then."""
    deny: Annotated[list[LicenseName], Field(min_length=1, max_length=64)] | None = None
    """None of these, whatever is allowed. Without `allow`, a model whose licence is not known is let in."""


class Reference(ApiModel):
    """Another slmops resource in the same namespace."""

    name: Name
    """Name of the resource."""


SOURCE_RULES = (
    Rule("!has(self.credentials) || has(self.uri)", "credentials go with uri"),
    Rule(
        "!has(self.verify) || !has(self.uri) || self.uri.startsWith('oci://')",
        "verify goes with oci:// and with other resources: what hubs and servers hold has no signature of cosign's",
        "verify",
    ),
    ENDPOINT_RULE,
    KEYS_RULE,
    DIGEST_RULE,
)
"""Of what comes from an address, or from another resource."""


class ModelSource(ApiModel):
    """Where a model comes from: an address, or the result of another resource."""

    rules: ClassVar = (exactly_one_of("uri", "distillation", "fineTune"), *SOURCE_RULES)

    uri: Uri | None = None
    """Address of a model in safetensors format: oci://repository[:tag|@sha256:…], hf://org/name[@revision],
    https://…, s3://bucket/prefix, pvc://claim/path. Each attempt of a Job resolves tags and revisions to a digest, which
    status.inputs shows: name a digest where attempts, trials or adapters must not differ. #sha256=… after https://,
    s3:// and pvc:// is compared with what comes."""
    endpoint: Annotated[str, Field(pattern=ENDPOINT, max_length=256)] | None = None
    """Server of an s3:// address, for example https://minio.example:9000; Amazon's when absent."""
    distillation: Reference | None = None
    """The student of a Distillation, once it has succeeded."""
    fine_tune: Reference | None = None
    """The merged model of a FineTune, once it has succeeded."""
    credentials: SecretKey | None = None
    """Secret to read the address with."""
    verify: Verification | None = None
    """Refuse the model unless it is signed."""


class AdapterReference(Reference):
    """A FineTune in the same namespace that has made an adapter."""

    adapter: Name | None = None
    """Name of the adapter, where the FineTune has several."""


class AdapterSource(ApiModel):
    """An adapter (LoRA) of the model, and where it comes from: an address, or a FineTune."""

    rules: ClassVar = (exactly_one_of("uri", "fineTune"), *SOURCE_RULES)

    name: Name
    """Name of the adapter, unique in the list. Clients ask for it by this name, and its file and its layer have it."""
    uri: Uri | None = None
    """Address of an adapter in PEFT's layout, adapter_config.json and adapter_model.safetensors: as of a model."""
    endpoint: Annotated[str, Field(pattern=ENDPOINT, max_length=256)] | None = None
    """Server of an s3:// address, for example https://minio.example:9000; Amazon's when absent."""
    fine_tune: AdapterReference | None = None
    """The adapter of a FineTune, once it has succeeded."""
    credentials: SecretKey | None = None
    """Secret to read the address with."""
    verify: Verification | None = None
    """Refuse the adapter unless it is signed."""


ColumnName = Annotated[str, Field(min_length=1, max_length=128)]
Label = Annotated[str, Field(min_length=1, max_length=128)]


class Columns(ApiModel):
    """What the fields of a record are called in the files, where that differs from the field's own name."""

    messages: ColumnName | None = None
    """The list of messages (format Messages)."""
    prompt: ColumnName | None = None
    """The prompt (format PromptCompletion)."""
    completion: ColumnName | None = None
    """The answer (format PromptCompletion)."""
    rejected: ColumnName | None = None
    """A worse answer, for loss Contrastive (format PromptCompletion)."""
    text: ColumnName | None = None
    """The text (formats Text and Classification)."""
    label: ColumnName | None = None
    """The label (format Classification)."""
    category: ColumnName | None = None
    """What a record is about (any format); filters.balance can keep categories of like size."""


class DataSource(ApiModel):
    """A data set: files with one record a line or row."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.columns) || ((!has(self.columns.messages) || self.format == 'Messages')"
            " && ((!has(self.columns.prompt) && !has(self.columns.completion) && !has(self.columns.rejected))"
            " || self.format == 'PromptCompletion')"
            " && (!has(self.columns.text) || self.format in ['Text', 'Classification'])"
            " && (!has(self.columns.label) || self.format == 'Classification'))",
            "columns names a field that records of this format do not have: Messages has messages, PromptCompletion"
            " prompt, completion and rejected, Text text, Classification text and label",
            "columns",
        ),
        Rule("!has(self.labels) || self.format == 'Classification'", "labels go with format Classification", "labels"),
        ENDPOINT_RULE,
        KEYS_RULE,
        DIGEST_RULE,
    )

    uri: Uri
    """Address of the data: oci://repository[:tag|@sha256:…] of an artefact that holds files, https:// of one file, hf://,
    s3://bucket/prefix or pvc://claim/path. #sha256=… after https://, s3:// and pvc:// is compared with what comes. What a
    file holds is told by its name: *.jsonl, *.jsonl.zst, *.csv, *.parquet."""
    endpoint: Annotated[str, Field(pattern=ENDPOINT, max_length=256)] | None = None
    """Server of an s3:// address, for example https://minio.example:9000; Amazon's when absent."""
    path: Annotated[str, Field(max_length=256, pattern=FILE)] | None = None
    """File inside the artefact or folder, for example train.jsonl. All files with one of those names when absent. Of a
    volume this file alone is read, also for the digest."""
    format: Literal["Messages", "PromptCompletion", "Text", "Classification"] = "Messages"
    """How a record looks: Messages is {"messages": [{"role": …, "content": …}, …]}, PromptCompletion is
    {"prompt": …, "completion": …}, Text is {"text": …}, which is learned as a whole, and Classification is
    {"text": …, "label": …}, where the text is the prompt and the label the answer."""
    columns: Columns | None = None
    """Names that the fields have in the files, where those are others: columns of CSV and Parquet, keys of JSON."""
    labels: Annotated[list[Label], Field(min_length=2, max_length=256)] | None = None
    """The labels that there are (format Classification): a record with another one is refused. Where absent, any label
    is taken."""
    credentials: SecretKey | None = None
    """Secret to read the address with."""


class PromptSource(DataSource):
    """A data set whose records begin with a prompt."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *DataSource.rules,
        Rule("self.format != 'Text'", "records of format Text have no prompt: use another format here", "format"),
    )


Share = Annotated[float, Field(ge=0.01, le=0.5)]


class Output(ApiModel):
    """Where results are published."""

    repository: Annotated[str, Field(pattern=REPOSITORY, max_length=255)]
    """OCI repository without tag, for example registry.example/slm/farm-assistant."""
    credentials: SecretKey | None = None
    """Secret of type kubernetes.io/dockerconfigjson with the right to push."""
    sign: Signing | None = None
    """Sign what was published once it has passed its gates, and the documents that tell of it."""
