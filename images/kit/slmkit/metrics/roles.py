"""What a report says of several models that were measured on the same records."""

from collections.abc import Mapping

from slmkit.metrics import Measured, compared
from slmops.contract import Figures

MODEL = "model"
PARTNER = {"baseTaskBefore": "baseTask"}
"""Which model each is compared with, where that is not ``model``."""
ALONE = (MODEL, "baseTask")


def side_by_side(seen: Mapping[str, Measured]) -> dict[str, Figures]:
    """The figures by role; a reference also says how its right answers go with those of what is compared with it."""
    return {role: _figures(role, found, seen.get(PARTNER.get(role, MODEL))) for role, found in seen.items()}


def _figures(role: str, found: Measured, partner: Measured | None) -> Figures:
    return found.figures if role in ALONE or partner is None else compared(partner, found)
