"""The ground that all API models stand on: camelCase names, CEL rules, Kubernetes scalar types.

The models are the only source of the CRDs (``crd.py``): attribute docstrings become field descriptions, ``rules``
become ``x-kubernetes-validations``, so that what the API server refuses and what the operator parses cannot differ.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

GROUP = "slmops.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclass(frozen=True)
class Rule:
    """A CEL rule of the CRD and the message that a user sees when it is broken."""

    rule: str
    message: str
    field_path: str | None = None

    def schema(self) -> dict[str, str]:
        """The rule as an item of ``x-kubernetes-validations``."""
        extra = {"fieldPath": f".{self.field_path}"} if self.field_path else {}
        return {"rule": self.rule, "message": self.message, **extra}


def exactly_one_of(*fields: str) -> Rule:
    """A rule that exactly one of the (camelCase) fields is set."""
    count = " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields)
    return Rule(f"{count} == 1", f"set exactly one of {', '.join(fields)}")


class ApiModel(BaseModel):
    """Base of every API type."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.rules:
            schema["x-kubernetes-validations"] = [rule.schema() for rule in cls.rules]
        return schema

    def dump(self) -> dict[str, Any]:
        """As the API server stores it: camelCase, JSON types, unset fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


DURATION = r"^([0-9]+(ms|s|m|h|d))+$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
BOUND = r"^[0-9]+(\.[0-9]+)?(%|ms|s|m|h|k|M|G|Ki|Mi|Gi)?$"
PERCENT = r"^(100|[0-9]{1,2})(\.[0-9]+)?%$"
NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DATA_KEY = r"^[-._a-zA-Z0-9]+$"
AUTO = "Auto"
AUTO_OR_NAME = f"^({AUTO}|{NAME[1:-1]})$"

Duration = Annotated[str, Field(pattern=DURATION, max_length=20)]
"""For example ``90s``, ``1h30m``, ``2d``."""
Percent = Annotated[str, Field(pattern=PERCENT, max_length=10)]
Name = Annotated[str, Field(pattern=NAME, min_length=1, max_length=40)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=OBJECT_NAME)]
"""Of a Secret, a ConfigMap or a service account."""


def int_or_string(pattern: str, max_length: int = 20) -> WithJsonSchema:
    """The schema of a value that is written as a number or as text."""
    return WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": pattern, "maxLength": max_length})


def matching(pattern: str, examples: str, max_length: int = 20) -> AfterValidator:
    """Refuses what the pattern refuses, and negative counts: unions have no pattern of their own in pydantic."""

    def checked(value: int | str) -> int | str:
        text = str(value)
        good = value >= 0 if isinstance(value, int) else re.fullmatch(pattern, text) and len(text) <= max_length
        if not good:
            raise ValueError(f"expected for example {examples}")
        return value

    return AfterValidator(checked)


Quantity = Annotated[int | str, matching(QUANTITY, "2, 500m, 4Gi"), int_or_string(QUANTITY)]
"""A Kubernetes quantity: ``2``, ``500m``, ``4Gi``."""
Bound = Annotated[int | str, matching(BOUND, "92%, 200ms, 600Mi, 30"), int_or_string(BOUND)]
"""A number with its unit: ``92%``, ``200ms``, ``600Mi``, ``30`` (ratios are written as percentages)."""
IntOrPercent = Annotated[int | str, matching(PERCENT, "3, 10%"), int_or_string(PERCENT)]
"""A count, or a share of all: ``3``, ``10%``."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SCALE: Mapping[str, Decimal] = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


def seconds(duration: str) -> float:
    """A ``Duration`` in seconds. Raises ValueError on anything that the schema would refuse."""
    if not re.fullmatch(DURATION, duration):
        raise ValueError(f"not a duration: {duration!r}, expected for example 90s, 1h30m")
    return sum(int(n) * _SECONDS[unit] for n, unit in re.findall(r"([0-9]+)(ms|s|m|h|d)", duration))


def quantity(value: int | str) -> Decimal:
    """A ``Quantity`` as a number. Raises ValueError on anything that the schema would refuse."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?", str(value))
    if not match:
        raise ValueError(f"not a quantity: {value!r}, expected for example 2, 500m, 4Gi")
    return Decimal(match[1]) * _SCALE[match[2] or ""]


def share_of(value: int | str, total: int) -> int:
    """An ``IntOrPercent`` as a count of ``total``, rounded up, so that a share above zero is never nobody."""
    if isinstance(value, int) or value.isdigit():
        return min(int(value), total)
    percent = Decimal(value.removesuffix("%"))
    return min(total, math.ceil(percent * total / 100))


def ratio(percent: str) -> float:
    """``5%`` as 0.05."""
    return float(Decimal(percent.removesuffix("%")) / 100)
