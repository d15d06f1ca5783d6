"""What is done with the records of a data set, and what became of them."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Rule
from slmops.api.sources import DataSource, Label, Share


class Balance(ApiModel):
    """How many records of one kind are kept."""

    per: Literal["Answer", "Category"] = "Answer"
    """What makes a kind: Answer, the record's answer (for labels), or Category, its field of that name (see
    columns.category)."""
    maximum: Annotated[int, Field(ge=1)]
    """Records of each kind that are kept: the first ones."""


class Filters(ApiModel):
    """Which records are dropped. Each one is counted in status.dataset under the reason that is named here. Records whose
    prompt is held out for the evaluation (Leaked) are dropped in any case."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.minTokens) || !has(self.maxTokens) || self.minTokens <= self.maxTokens",
            "minTokens must not be more than maxTokens",
            "minTokens",
        ),
    )

    deduplicate: bool = True
    """Drop records whose prompt was seen before (Duplicate)."""
    near_duplicates: Annotated[float, Field(gt=0, le=1)] | None = None
    """Drop records whose prompt is at least this similar to an earlier one, 0.8 for example (NearDuplicate): the share
    of three words in a row that both have, estimated by MinHash."""
    min_tokens: Annotated[int, Field(ge=1)] | None = None
    """Drop records with fewer words than this, prompt and answer together (TooShort)."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Drop records with more words than this, prompt and answer together (TooLong)."""
    labels: Annotated[list[Label], Field(min_length=2, max_length=256)] | None = None
    """Drop records whose answer is none of these (InvalidLabel)."""
    balance: Balance | None = None
    """Drop what is too much of one kind (Unbalanced)."""


class LabellingFilters(Filters):
    """Which prompts are asked, and which of the teacher's answers are kept. Each one that is dropped is counted in
    status.dataset under the reason that is named here. Prompts that are held out for the evaluation are never learned
    from (Leaked)."""

    agreement: Annotated[int, Field(ge=2, le=16)] | None = None
    """Keep one answer a prompt, the one that most of teacher.sampling.samples samples give, where at least so many of
    them do; drop the prompt otherwise (Disagreement). Where absent, each different answer is a record."""


ONE_VALIDATION = Rule(
    "!(has(self.validation) && has(self.validationSplit))", "set validation or validationSplit, not both"
)


class FineTuneData(ApiModel):
    """Records to learn from."""

    rules: ClassVar = (ONE_VALIDATION,)

    train: DataSource
    """Records with answers."""
    validation: DataSource | None = None
    """Held-out records with answers. Beside evaluation.data they are what the training is followed by (early stopping, the
    trials of a search), and the figures at the end are those of evaluation.data."""
    validation_split: Share | None = None
    """Share of train that is held out when validation is absent; 0.1 when neither is set. None is where evaluation.data is
    set."""
    filters: Filters | None = None
    """Which records are dropped; with it, a report on the data is published. Where absent, only records without an
    answer are dropped, and those whose prompt is held out for the evaluation."""
    template: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """Chat template in Jinja2, in place of the base's own: how messages become text. It sees what templates of
    transformers see (messages, add_generation_prompt, eos_token …), is tried before the training, and goes with the model
    wherever it is served."""


class DatasetStatus(ApiModel):
    """What became of the records."""

    prompts: int
    """Records read."""
    labelled: int
    """Records that have an answer."""
    kept: int
    """Records that passed the filters, held-out ones among them."""
    dropped: dict[str, int] = {}
    """Records dropped, by reason."""
    tokens: int = 0
    """Tokens in the kept answers."""
    digest: str | None = None
    """Digest of the published data set (Distillation)."""
    report: str | None = None
    """Artefact with report.html, a page on what was dropped and what is left, and report.json, the same for programs."""
