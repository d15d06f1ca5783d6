"""Hours in which nodes get their turn."""

from datetime import UTC, datetime

import pytest

from slmops.api.strategy import Window
from slmops.rollout.window import hours, opens_in, unknown_zone
from tests.unit.fleet_builders import measured

NIGHT = {"from": "22:00", "to": "05:00"}
LUNCH = {"from": "12:00", "to": "13:30"}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "now", "left"),
    [
        (LUNCH, "2026-11-30 12:00", 0),
        (LUNCH, "2026-11-30 13:29:59", 0),
        (LUNCH, "2026-11-30 13:30", 22.5 * 3600),
        (LUNCH, "2026-11-30 11:59", 60),
        (NIGHT, "2026-11-30 22:00", 0),
        (NIGHT, "2026-11-30 04:59", 0),
        (NIGHT, "2026-11-30 05:00", 17 * 3600),
        # Saturday's night lasts until Sunday morning, and Sunday has none.
        (NIGHT | {"days": ["Sat"]}, "2026-11-29 03:00", 0),
        (NIGHT | {"days": ["Sat"]}, "2026-11-28 03:00", 19 * 3600),
        (NIGHT | {"days": ["Sat"]}, "2026-11-29 05:00", (7 * 24 - 7) * 3600),
        (LUNCH | {"days": ["Mon"]}, "2026-11-30 13:30", (7 * 24 - 1.5) * 3600),
        # 22:00 in Copenhagen is 21:00 in winter and 20:00 in summer.
        (NIGHT | {"timeZone": "Europe/Copenhagen"}, "2026-11-30 21:00", 0),
        (NIGHT | {"timeZone": "Europe/Copenhagen"}, "2026-11-30 20:00", 3600),
        (NIGHT | {"timeZone": "Europe/Copenhagen"}, "2026-07-01 20:00", 0),
        # The night in which clocks are put back has an hour more.
        (NIGHT | {"timeZone": "Europe/Copenhagen"}, "2026-10-25 03:59", 0),
        (NIGHT | {"timeZone": "Europe/Copenhagen"}, "2026-10-25 04:00", 17 * 3600),
        # It is another day there already.
        (LUNCH | {"timeZone": "Pacific/Auckland", "days": ["Tue"]}, "2026-11-30 23:00", 0),
    ],
)
def test_when_it_opens(window: dict[str, object], now: str, left: float) -> None:
    assert opens_in(Window.model_validate(window), at(now)) == left


def test_without_one_it_is_always_open() -> None:
    assert opens_in(None, at("2026-11-30 12:00")) == 0
    assert hours(None) == "at any time"


def test_it_is_told_in_words() -> None:
    window = Window.model_validate(NIGHT | {"timeZone": "Europe/Copenhagen", "days": ["Mon", "Tue"]})
    assert hours(window) == "from 22:00 to 05:00 Europe/Copenhagen on Mon, Tue"


@pytest.mark.parametrize("name", ["Europe/Kopenhagen", "Europe", "CEST", "localtime/x"])
def test_a_time_zone_that_is_not_known_is_told(name: str) -> None:
    problem = unknown_zone(measured("a", strategy={"window": NIGHT | {"timeZone": name}}))
    assert problem is not None
    assert problem.reason == "UnknownTimeZone"
    assert f"spec.strategy.window.timeZone: {name} is not known" in problem.message
    assert unknown_zone(measured("a", strategy={"window": NIGHT})) is None
