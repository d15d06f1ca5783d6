"""Hours in which nodes get their turn, by the wall clock of a time zone."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from slmops.api.conditions import ConditionType
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.strategy import Window
from slmops.state import Problem

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def unknown_zone(resource: EdgeDeployment) -> Problem | None:
    """What is wrong with the name of a time zone: no rule of the API server knows them."""
    window = resource.spec.strategy.window
    if window is None or _zone(window) is not None:
        return None
    message = (
        f"spec.strategy.window.timeZone: {window.time_zone} is not known; write for example Europe/Copenhagen or UTC"
    )
    return Problem(ConditionType.ACCEPTED, "UnknownTimeZone", message)


def opens_in(window: Window | None, now: datetime) -> float:
    """Seconds until nodes may get their turn; 0 while they may.

    Hours are those that the clock on the wall shows: where it is put forward or back within a window, that is an hour
    shorter or longer.
    """
    zone = _zone(window) if window is not None else None
    if window is None or zone is None:
        return 0.0
    today = now.astimezone(zone).date()
    begin, end = time.fromisoformat(window.from_), time.fromisoformat(window.to)
    left = []
    for offset in range(-1, 8):
        day = today + timedelta(days=offset)
        if window.days and DAYS[day.weekday()] not in window.days:
            continue
        opens = datetime.combine(day, begin, zone).astimezone(UTC)
        closes = datetime.combine(day + timedelta(days=end <= begin), end, zone).astimezone(UTC)
        if opens <= now < closes:
            return 0.0
        if opens > now:
            left.append((opens - now).total_seconds())
    return min(left)


def hours(window: Window | None) -> str:
    """The window in words."""
    if window is None:
        return "at any time"
    days = f" on {', '.join(window.days)}" if window.days else ""
    return f"from {window.from_} to {window.to} {window.time_zone}{days}"


def _zone(window: Window) -> ZoneInfo | None:
    try:
        return ZoneInfo(window.time_zone)
    except (KeyError, OSError, ValueError):  # one that is not there, a folder of them, a name that is a path
        return None
