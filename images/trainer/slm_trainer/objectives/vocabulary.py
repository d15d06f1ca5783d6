"""Do teacher and student mean the same by a token? Equal sizes say nothing: the maps are compared."""

from typing import Any

from slmkit.run import RunFailed
from slmops.contract import Reason


def check_same(teacher: Any, student: Any, objective: str) -> None:
    """Raise RunFailed where a token of the student has another id for the teacher, or none.

    What only the teacher has comes after all of the student's tokens then, and is never hinted at.
    """
    theirs, ours = teacher.get_vocab(), student.get_vocab()
    differing = sorted((number, token) for token, number in ours.items() if theirs.get(token) != number)
    if differing:
        number, token = differing[0]
        there = f"token {theirs[token]}" if token in theirs else "no token"
        raise RunFailed(
            Reason.VOCABULARY_MISMATCH,
            f"objective {objective} needs one vocabulary for both: {len(differing)} of the student's {len(ours)} tokens "
            f"differ, for example {token[:40]!r} is token {number} for the student and {there} for the teacher",
        )
