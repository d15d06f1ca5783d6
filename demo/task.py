"""A language task small enough to learn from nothing in minutes: a farmer's command becomes a JSON function call.

No download, no licence, and a right answer that can be compared letter by letter. Every record is drawn from a grammar:
a *domain* has a function, slots with values, and several wordings. There are millions of combinations, so a model
cannot learn them by heart, and training and held-out records never share a combination (see ``is_held_out``).

``irrigate`` is the domain kept for fine-tuning. A model trained on ``BASE_DOMAINS`` has read every word of it, since
the base asks about and cancels irrigation, but has never seen its function called: the situation of a team that teaches
a deployed model one more thing with a small adapter. Times are 24 h: am and pm cost tiny models more than they teach.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Value = str | int
Slots = Mapping[str, Value]
Draw = Callable[[random.Random], Value]


def _one_of(*values: Value) -> Draw:
    return lambda rng: rng.choice(values)


def _number(low: int, high: int, step: int = 1) -> Draw:
    return lambda rng: rng.randrange(low, high + 1, step)


def _time(rng: random.Random) -> str:
    return f"{rng.randrange(24):02}:{rng.randrange(60):02}"


_PLACE = _one_of(
    "north barn", "south barn", "milking parlour", "calving shed", "tool shed", "grain store", "workshop", "stable",
    "farm yard", "feed room", "hay loft", "cold store",
)  # fmt: skip
_FIELD = _one_of(
    *(f"{kind} {number}" for kind in ("field", "orchard", "greenhouse", "plot") for number in range(1, 10))
)
_WATERER = _one_of("drip line", "sprinkler", "rain gun", "mist nozzle", "main valve", "pivot arm")
_GATE = _one_of("east gate", "west gate", "main gate", "pasture gate", "yard door", "barn door")
_ANIMALS = _one_of("calves", "dairy cows", "sheep", "goats", "hens", "pigs", "horses", "lambs")
_FEED = _one_of("hay", "silage", "barley", "maize", "pellets", "straw")


@dataclass(frozen=True)
class Domain:
    """One function: its slots in the order of its JSON arguments, and the ways people ask for it."""

    function: str
    slots: Mapping[str, Draw]
    wordings: tuple[str, ...]


BASE_DOMAINS = (
    Domain(
        "set_light",
        {"place": _PLACE, "percent": _number(5, 100, 5), "at": _time},
        (
            "set the lights in the {place} to {percent} percent at {at}",
            "at {at} dim the {place} lights to {percent} percent",
            "i want {percent} percent light in the {place} from {at}",
            "{place} lights {percent} percent at {at}",
        ),
    ),
    Domain(
        "set_climate",
        {"place": _PLACE, "celsius": _number(4, 30), "from": _time, "to": _time},
        (
            "keep the {place} at {celsius} degrees from {from} to {to}",
            "between {from} and {to} heat the {place} to {celsius} degrees",
            "the {place} should be {celsius} degrees from {from} until {to}",
        ),
    ),
    Domain(
        "move_gate",
        {"gate": _GATE, "action": _one_of("open", "close", "lock"), "minutes": _number(5, 60), "at": _time},
        (
            "{action} the {gate} for {minutes} minutes at {at}",
            "at {at} {action} the {gate} for {minutes} minutes",
            "{action} the {gate} at {at} and keep it so for {minutes} minutes",
        ),
    ),
    Domain(
        "feed",
        {"animals": _ANIMALS, "kilograms": _number(2, 90), "feed": _FEED, "at": _time},
        (
            "give the {animals} {kilograms} kilograms of {feed} at {at}",
            "feed {kilograms} kilograms of {feed} to the {animals} at {at}",
            "at {at} the {animals} get {kilograms} kilograms of {feed}",
        ),
    ),
    Domain(
        "get_status",
        {"device": _WATERER, "place": _FIELD, "since": _time},
        (
            "how did the {device} in {place} run since {since}",
            "show the {device} of {place} since {since}",
            "how many minutes of water did the {device} give {place} since {since}",
        ),
    ),
    Domain(
        "cancel",
        {
            "action": _one_of("irrigate", "feed", "set_light", "set_climate"),
            "place": _FIELD,
            "from": _time,
            "to": _time,
        },
        (
            "cancel {action} for {place} from {from} to {to}",
            "do not {action} in {place} between {from} and {to}",
            "drop {action} from the plan of {place} from {from} until {to}",
        ),
    ),
)
IRRIGATION = Domain(
    "irrigate",
    {"device": _WATERER, "place": _FIELD, "minutes": _number(5, 60), "at": _time},
    (
        "give {place} water from the {device} for {minutes} minutes at {at}",
        "at {at} run the {device} in {place} for {minutes} minutes",
        "i want the {device} to give {place} water for {minutes} minutes from {at}",
        "keep the {device} of {place} open for {minutes} minutes at {at}",
    ),
)
_OPENINGS = ("", "", "please ", "hey farm, ", "could you ")
_SPOKEN = {"irrigate": "irrigation", "feed": "feeding", "set_light": "light", "set_climate": "heating"}


@dataclass(frozen=True)
class Example:
    """A command and the function call it asks for."""

    prompt: str
    completion: str


def answer(function: str, slots: Slots) -> str:
    """The function call as a model must write it: compact JSON, arguments in the domain's order."""
    return json.dumps({"name": function, "arguments": dict(slots)}, separators=(",", ":"))


def is_held_out(completion: str) -> bool:
    """One combination in ten never appears in training, whatever its wording; decided by its own hash alone."""
    return hashlib.sha256(completion.encode()).digest()[0] % 10 == 0


def examples(domains: tuple[Domain, ...], seed: int, held_out: bool) -> Iterator[Example]:
    """Endless examples without repetition of a combination; the same seed gives the same sequence."""
    rng = random.Random(seed)  # noqa: S311 - reproducible data, no secret
    seen: set[str] = set()
    while True:
        domain = rng.choice(domains)
        slots = {name: draw(rng) for name, draw in domain.slots.items()}
        wording, opening = rng.choice(domain.wordings), rng.choice(_OPENINGS)
        completion = answer(domain.function, slots)
        if completion in seen or is_held_out(completion) is not held_out:
            continue
        seen.add(completion)
        spoken = {name: _SPOKEN.get(str(value), value) for name, value in slots.items()}
        yield Example(opening + wording.format(**spoken), completion)
