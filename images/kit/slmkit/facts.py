"""What is known of something made, in one place: annotations, provenance, bill of materials and card say the same.

What goes into the artefact itself (annotations, card) holds no time and no figure that differs from run to run: the same
inputs give the same digest. Times and all figures are in the documents that refer to it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slmops.contract import ADAPTER_TYPE, DATASET_TYPE, FIGURE_FIELDS, MODEL_TYPE, Figures, Metric, Run

PREFIX = "slmops.dev/"
INPUT = f"{PREFIX}input."
METRIC = f"{PREFIX}metric."
NOT_WISHED = {"run", "registry", "annotations", "image", "budget", "output", "egress"}
"""Fields of a run that change nothing of what it makes."""
UNSTEADY = {Metric.INFERENCE_TIME, Metric.TIME_TO_FIRST_TOKEN, Metric.PEAK_MEMORY}
"""Figures that differ from run to run."""
IMAGE_TYPE = "application/vnd.oci.image.config.v1+json"
"""Of a model image, which has no type of its own."""
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
"""Of several model images under one address."""
KINDS = {DATASET_TYPE: "data set", MODEL_TYPE: "model", ADAPTER_TYPE: "adapter", IMAGE_TYPE: "model image",
         INDEX_TYPE: "index of model images"}  # fmt: skip
MOST = 32
"""Metrics in annotations, which a registry keeps in the manifest."""


@dataclass(frozen=True)
class Facts:
    """Inputs by role, the configuration, the code, and what was measured, by model."""

    run: Run
    inputs: Mapping[str, str]
    artifact_type: str
    figures: Mapping[str, Figures]
    licence: str = ""
    """SPDX expression of the base's licence; empty when nobody knows it."""

    @property
    def kind(self) -> str:
        """What it is, in a word or two."""
        return KINDS.get(self.artifact_type, "artefact")

    @property
    def title(self) -> str:
        """The last part of the repository's name."""
        output = getattr(self.run, "output", None)
        return output.repository.rpartition("/")[2] if output is not None else self.kind

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What was asked for, less names, places and where secrets are mounted."""
        found = plain(self.run.model_dump(mode="json", exclude=NOT_WISHED))
        return dict(found)

    @property
    def configuration_digest(self) -> str:
        """SHA-256 over the configuration as canonical JSON (sorted keys, no blanks)."""
        text = json.dumps(self.configuration, sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def measured(self, role: str = "model", steady: bool = True) -> dict[str, float]:
        """Figures of one model by their API names; ``steady``: only those that the same inputs give again."""
        figures = self.figures.get(role)
        told = {name: getattr(figures, field, None) for name, field in sorted(FIGURE_FIELDS.items())}
        return {name: value for name, value in told.items() if value is not None and not (steady and name in UNSTEADY)}

    def annotations(self) -> dict[str, str]:
        """What the artefact's manifest says."""
        found = dict(self.run.annotations)
        found |= {f"{INPUT}{role}": uri for role, uri in sorted(self.inputs.items())}
        found[f"{PREFIX}configuration"] = self.configuration_digest
        if self.run.image:
            found[f"{PREFIX}image"] = self.run.image
        if self.licence:
            found["org.opencontainers.image.licenses"] = self.licence
        if self.artifact_type != DATASET_TYPE:
            found |= {f"{METRIC}{name}": f"{value:.10g}" for name, value in list(self.measured().items())[:MOST]}
        return found


def plain(value: Any) -> Any:
    """Without what names mounted Secrets; 2.0 as 2, as JSON's numbers come back from everybody else (RFC 8785)."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if key not in ("credentials", "verify")}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
