"""What runs may cost, and what they have cost."""

from decimal import Decimal
from typing import Annotated, ClassVar

from pydantic import Field

from slmops.api.base import ApiModel, Rule, int_or_string, matching

AMOUNT = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"
CURRENCY = r"^[A-Z]{3}$"
Amount = Annotated[int | str, matching(AMOUNT, '20, "2.50"'), int_or_string(AMOUNT)]
"""A decimal number, exact: ``20``, ``"2.50"``."""


class Price(ApiModel):
    """What an hour costs."""

    rules: ClassVar = (
        Rule("has(self.perGpuHour) || has(self.perNodeHour)", "set perGpuHour, perNodeHour or both"),
    )  # fmt: skip

    per_gpu_hour: Amount | None = None
    """For each GPU that a pod has."""
    per_node_hour: Amount | None = None
    """For each pod, with or without a GPU: what the rest of the node costs."""
    currency: Annotated[str, Field(pattern=CURRENCY)]
    """Three letters of ISO 4217: EUR."""

    def hourly(self, gpus: int) -> Decimal:
        """What an hour of one pod with so many GPUs costs."""
        return gpus * Decimal(str(self.per_gpu_hour or 0)) + Decimal(str(self.per_node_hour or 0))


class Budget(ApiModel):
    """Bounds on what all attempts of all Jobs may use together."""

    rules: ClassVar = (
        Rule("has(self.gpuHours) || has(self.price)", "set gpuHours, or price to see what is spent"),
        Rule("!has(self.max) || has(self.price)", "max needs price: without it nobody knows what an hour costs", "max"),
    )

    gpu_hours: Amount | None = None
    """Hours of one GPU: two GPUs use two in an hour."""
    price: Price | None = None
    """What an hour costs."""
    max: Amount | None = None
    """The most that may be spent, in the price's currency."""


class Attempt(ApiModel):
    """The time of one pod, kept so that it still counts when the pod is gone."""

    pod: str
    """Name of the pod."""
    gpus: int = 0
    """GPUs that it has."""
    start: str
    """When the node took it."""
    end: str | None = None
    """When it ended; absent while it runs."""


class Gone(ApiModel):
    """The time of all pods that are gone."""

    gpu_seconds: int = 0
    """GPUs times seconds."""
    pod_seconds: int = 0
    """Seconds."""


class CostStatus(ApiModel):
    """What all attempts have used, failed ones too. A running pod counts by its whole minutes."""

    gpu_hours: float = 0.0
    """Hours of GPUs, from a pod's start on its node to its end."""
    node_hours: float = 0.0
    """Hours of pods."""
    amount: str | None = None
    """What that cost, where the spec has a price."""
    currency: str | None = None
    """Currency of the amount."""
    attempts: Annotated[list[Attempt], Field(max_length=512)] = []
    """The pods that are there."""
    gone: Gone | None = None
    """The pods that were there."""
