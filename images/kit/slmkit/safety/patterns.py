"""Regular expressions of strangers, for engines that try every way (Oniguruma, in tokenizers).

What makes such a pattern take exponential time is a repetition of something that can itself match in several ways:
``(a+)+``, ``(a|aa)*``, ``(a?b?)*``, or many choices in a row: ``a?a?a?…``. Repetitions in a row take the text's length to
the power of their number. Patterns of published tokenizers have none of the former and two of the latter, so the rest is
refused without deciding which of them would be harmless.
"""

import re
from typing import NamedTuple

LENGTH = 4096
REPEATS = 1000
"""The largest ``{n,m}``; repetitions within repetitions are multiplied."""
ENDLESS, WAYS = 2, 4096
"""Repetitions without end in a row, and in how many ways all else can match."""
UNBOUNDED = 1 << 20
PREFIX = re.compile(r"\?(?:[:=!>|]|<[=!]|<\w+>|P<\w+>|[imxs-]+:|[imxs-]+(?=\)))")
QUANTIFIER = re.compile(r"[*+?][?+]?|\{(\d*)(?:(,)(\d*))?\}")
"""``{1,2}+`` is a repetition of a repetition: Oniguruma reads it as Ruby does."""
ELSEWHERE = re.compile(r"\\(?:[gk][<']|[1-9])")
"""Means another part of the pattern once more."""


class Part(NamedTuple):
    """What is known of a part of a pattern."""

    most: int = 1
    """Its largest repetition."""
    varies: bool = False
    """Whether it can match in several ways."""
    endless: int = 0
    """Repetitions without end in a row."""
    ways: int = 1
    """In how many ways the rest of it can match."""


NOTHING = ONE = Part()


def trouble(pattern: str) -> str:
    """Why a pattern is refused; empty when it is not."""
    if len(pattern) > LENGTH:
        return f"is longer than {LENGTH} characters"
    outer: list[tuple[Part | None, Part]] = []
    before: Part | None = None
    now, last = NOTHING, NOTHING
    """Of the open group: the alternatives before, this one as far as it was read, and what was read last."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "(":
            prefix = PREFIX.match(pattern, at + 1)
            if prefix is None and pattern[at + 1 : at + 2] in ("?", "*"):
                return "has a group of a kind that is not known"
            outer.append((before, _then(now, last)))
            before, now, last = None, NOTHING, NOTHING
            at = prefix.end() if prefix else at + 1
        elif char == ")" and outer:
            last, at = _or(before, _then(now, last)), at + 1
            before, now = outer.pop()
        elif char == "|":
            before, now, last, at = _or(before, _then(now, last)), NOTHING, NOTHING, at + 1
        elif at and (found := QUANTIFIER.match(pattern, at)):
            least, most = _times(found)
            if most > 1 and last.varies:
                return "repeats what can match in several ways, which can take for ever"
            last, at = _repeated(last, least, most), found.end()
            if last.most > REPEATS:
                return f"repeats something more than {REPEATS} times"
        elif ELSEWHERE.match(pattern, at):
            return "refers to another part of itself"
        else:
            now, last, at = _then(now, last), ONE, _next(pattern, at)
    while outer:  # a group that is not closed
        last = _or(before, _then(now, last))
        before, now = outer.pop()
    whole = _or(before, _then(now, last))
    if whole.endless > ENDLESS:
        return f"has more than {ENDLESS} repetitions without end in a row, which can take for ever"
    return f"can match in more than {WAYS} ways" if whole.ways > WAYS else ""


def _then(one: Part, other: Part) -> Part:
    return Part(
        max(one.most, other.most), one.varies or other.varies, one.endless + other.endless,
        min(one.ways * other.ways, UNBOUNDED),
    )  # fmt: skip


def _or(one: Part | None, other: Part) -> Part:
    """One or the other; the other, where it is the only one."""
    if one is None:
        return other
    return Part(max(one.most, other.most), True, max(one.endless, other.endless), min(one.ways + other.ways, UNBOUNDED))


def _repeated(part: Part, least: int, most: int) -> Part:
    if most == UNBOUNDED:
        return Part(part.most, True, part.endless + 1, part.ways)
    together = max(most * part.most, part.most)
    return Part(together, most != least, part.endless, min(part.ways * (most - least + 1), UNBOUNDED))


def _times(found: re.Match[str]) -> tuple[int, int]:
    """How often a quantifier repeats at least and at most."""
    kind = found[0][0]
    if kind != "{":
        return int(kind == "+"), 1 if kind == "?" else UNBOUNDED
    least = int((found[1] or "0")[:9])
    if found[2] is None:
        return least, least
    return least, int(found[3][:9]) if found[3] else UNBOUNDED


def _next(pattern: str, at: int) -> int:
    """Where the next part begins: after an escape, a class, a character."""
    if pattern[at] == "[":
        return _class_end(pattern, at)
    if pattern[at] != "\\":
        return at + 1
    braced = re.compile(r"\\[pPxuoNkg](?:\{[^}]*\}|<[^>]*>)").match(pattern, at)
    return braced.end() if braced else at + 2


def _class_end(pattern: str, at: int) -> int:
    """Where a character class ends; Oniguruma's may be nested."""
    depth = 0
    begin = at
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "[":
            depth += 1
        elif pattern[at] == "]" and at not in (begin + 1, begin + 2 if pattern[begin + 1 : begin + 2] == "^" else -1):
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return at
