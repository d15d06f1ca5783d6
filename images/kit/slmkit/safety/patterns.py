"""Regular expressions of strangers, for engines that try every way (Oniguruma, in tokenizers).

What makes such a pattern take exponential time is a repetition of something that can itself match in several ways:
``(a+)+``, ``(a|aa)*``, ``(a?b?)*``. Patterns of published tokenizers have none, so they are refused without deciding
which of them would be harmless.
"""

import re

LENGTH = 4096
REPEATS = 1000
"""The largest ``{n,m}``; repetitions within repetitions are multiplied."""
UNBOUNDED = 1 << 20
PREFIX = re.compile(r"\?(?:[:=!>|]|<[=!]|<\w+>|P<\w+>|[imxs-]+:|[imxs-]+(?=\)))")
QUANTIFIER = re.compile(r"([*+?]|\{(\d*)(?:(,)(\d*))?\})[?+]?")


def trouble(pattern: str) -> str:
    """Why a pattern is refused; empty when it is not."""
    if len(pattern) > LENGTH:
        return f"is longer than {LENGTH} characters"
    outer: list[tuple[int, bool]] = []
    open_, last = (1, False), (1, False)
    """Of the open group, and of what was read last: its largest repetition, and whether it can match in several ways."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "(":
            outer.append(open_)
            prefix = PREFIX.match(pattern, at + 1)
            at, open_, last = prefix.end() if prefix else at + 1, (1, False), (1, False)
        elif char == ")" and outer:
            last, at = open_, at + 1
            open_ = _both(outer.pop(), last)
        elif char == "|":
            open_, last, at = (open_[0], True), (1, False), at + 1
        elif at and (found := QUANTIFIER.match(pattern, at)):
            times, varies = _times(found)
            if times > 1 and last[1]:
                return "repeats what can match in several ways, which can take for ever"
            together = 1 if varies and times == UNBOUNDED else times * last[0]
            if together > REPEATS:
                return f"repeats something more than {REPEATS} times"
            last, at = (max(together, last[0]), varies), found.end()
            open_ = _both(open_, last)
        else:
            at, last = _next(pattern, at), (1, False)
    return ""


def _both(one: tuple[int, bool], other: tuple[int, bool]) -> tuple[int, bool]:
    return max(one[0], other[0]), one[1] or other[1]


def _times(found: re.Match[str]) -> tuple[int, bool]:
    """How often a quantifier repeats at most, and whether that is not always as often."""
    if found[1] == "?":
        return 1, True
    if found[1] in ("*", "+"):
        return UNBOUNDED, True
    least = int((found[2] or "0")[:9])
    if found[3] is None:
        return least, False
    most = int(found[4][:9]) if found[4] else UNBOUNDED
    return most, most != least


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
