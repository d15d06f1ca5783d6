"""What a Distillation teaches: the teacher's words, its probabilities, or what its layers hold."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from slmops.api.base import ApiModel, Rule


class LayerPair(ApiModel):
    """A layer of the student and the teacher's that it learns from."""

    student: Annotated[int, Field(ge=1, le=256)]
    """Layer of the student, counted from 1."""
    teacher: Annotated[int, Field(ge=1, le=256)]
    """Layer of the teacher, counted from 1."""


class Objective(ApiModel):
    """What the student is taught."""

    rules: ClassVar = (
        Rule("self.type == 'Features' || !has(self.layers) || size(self.layers) == 0", "layers go with type Features",
             "layers"),
        Rule("self.type == 'Features' || !self.attention", "attention goes with type Features", "attention"),
    )  # fmt: skip

    type: Literal["Labels", "Logits", "Features"] = "Labels"
    """Labels: the teacher's words. Logits: also its probabilities for each next token. Features: also what its layers
    hold. Logits and Features need teacher.model and a shared vocabulary."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Softens the probabilities (Logits)."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the probabilities, or of the features, against the words (Logits, Features)."""
    top_k: Annotated[int, Field(ge=1, le=1024)] = 16
    """The teacher's likeliest tokens that are kept for each position (Logits)."""
    layers: Annotated[list[LayerPair], Field(max_length=64)] = []
    """Which layer learns from which (Features). When empty, each of the student's from the teacher's at the same share of
    the depth."""
    attention: bool = False
    """Compare the attention of these layers, too (Features)."""


NEEDS_WEIGHTS = Rule(
    "!has(self.objective) || self.objective.type == 'Labels' || has(self.teacher.model)",
    "Logits and Features need teacher.model: an endpoint shows neither its probabilities nor its layers",
    "objective.type",
)
UNPACKED = Rule(
    "!has(self.training) || !self.training.packing || !has(self.objective) || self.objective.type == 'Labels'",
    "packing goes with objective Labels: what the teacher shows is kept for one record at a time",
    "training.packing",
)
KNOWN_LAYERS = Rule(
    "!has(self.objective) || !has(self.objective.layers) || !has(self.student.architecture)"
    " || self.objective.layers.all(pair, pair.student <= self.student.architecture.layers)",
    "objective.layers names a layer that student.architecture does not have",
    "objective.layers",
)
