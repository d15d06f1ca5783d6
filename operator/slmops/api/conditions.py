"""Conditions: one uniform, positive set for all kinds, with reasons from one list.

Kubernetes' convention for `metav1.Condition`: `lastTransitionTime` moves when `status` flips and at no other time.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from slmops.api.base import ApiModel


class ConditionType(StrEnum):
    """What a condition states. True is always the good news."""

    ACCEPTED = "Accepted"
    INPUTS_RESOLVED = "InputsResolved"
    SYNTHESIZED = "Synthesized"
    TRAINED = "Trained"
    EVALUATED = "Evaluated"
    QUANTIZED = "Quantized"
    PUBLISHED = "Published"
    SIGNED = "Signed"
    SUCCEEDED = "Succeeded"
    PROGRESSING = "Progressing"
    BENCHMARKED = "Benchmarked"
    EVIDENCED = "Evidenced"
    PROMOTED = "Promoted"
    WITHIN_BOUNDS = "WithinBounds"
    READY = "Ready"


Status = Literal["True", "False", "Unknown"]


class Condition(ApiModel):
    """One aspect of the object's state."""

    type: Annotated[str, Field(max_length=64)]
    """What is stated, for example Trained."""
    status: Status
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=64)]
    """A stable word for why, made for machines."""
    message: Annotated[str, Field(max_length=2048)] = ""
    """Why, and what to do about it, made for people."""
    observed_generation: int
    """The generation of the spec that this was computed from."""
    last_transition_time: str
    """When `status` last flipped."""


class Fact(ApiModel):
    """A condition before it has a time: what the pure status functions state."""

    type: ConditionType
    status: Status
    reason: str
    message: str = ""


def true(type: ConditionType, reason: str, message: str = "") -> Fact:
    """It holds."""
    return Fact(type=type, status="True", reason=reason, message=message)


def false(type: ConditionType, reason: str, message: str = "") -> Fact:
    """It does not hold, and will not by itself."""
    return Fact(type=type, status="False", reason=reason, message=message)


def unknown(type: ConditionType, reason: str, message: str = "") -> Fact:
    """Not known yet: the work is still to come or under way."""
    return Fact(type=type, status="Unknown", reason=reason, message=message)


def timestamp(now: datetime) -> str:
    """A time as Kubernetes writes it, whole seconds in UTC."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: object) -> datetime | None:
    """A time as Kubernetes writes it; None where there is none that can be read. A status or a pod may hold anything that
    its schema calls text, and the year 0 too: that must stop no pass."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def merge(before: Iterable[Condition], facts: Iterable[Fact], generation: int, now: datetime) -> list[Condition]:
    """The facts as conditions; a fact whose status did not change keeps the time of its last flip."""
    known = {condition.type: condition for condition in before}
    merged = []
    for fact in facts:
        old = known.get(fact.type)
        flipped = old is None or old.status != fact.status
        merged.append(
            Condition(
                type=fact.type,
                status=fact.status,
                reason=fact.reason,
                message=fact.message[:2048],
                observed_generation=generation,
                last_transition_time=timestamp(now) if flipped or old is None else old.last_transition_time,
            )
        )
    return merged
