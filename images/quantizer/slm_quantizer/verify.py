"""Does the converted model answer like the original? Compared number by number, in the runtime that will serve it."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slm_quantizer.likeness import enough, likeness
from slm_quantizer.runtimes import Runtime, Said, Torch
from slmkit.run import RunFailed
from slmops.contract import Reason, Verification

log = logging.getLogger(__name__)
GREEDY = {"FP32": 1.0}
"""Least share of greedy tokens that are the original's, up to the first other one. Rounding may change words, so only what
is not rounded has a bound."""
NEW_TOKENS = 16
"""Greedy tokens after each prompt."""
TIE = 1e-3
"""Tokens whose logits differ by less than this share of their spread may change places."""


@dataclass(frozen=True)
class Look:
    """What the original and the converted model make of the same prompts, and how alike that is."""

    wanted: Sequence[Said]
    found: Sequence[Said]
    verification: Verification


def look(source: Torch, load: Callable[[], Runtime], precision: str, prompts: Sequence[str]) -> Look:
    """Load the converted model and compare it on those of the prompts that are no longer than it reads. Raises RunFailed,
    VerificationFailed, where it cannot be loaded, cuts or reads text in another way, or answers too differently."""
    prompts = [prompt for prompt in prompts if source.fits(prompt, NEW_TOKENS)]
    try:
        said = load().say(prompts, NEW_TOKENS)
    except RunFailed:
        raise
    except Exception as error:
        raise RunFailed(Reason.VERIFICATION_FAILED, f"the runtime cannot load the converted model: {error}") from None
    similarities, shares = [], []
    original = source.say(prompts, NEW_TOKENS)
    for prompt, wanted, found in zip(prompts, original, said, strict=True):
        _same_text(prompt, wanted, found)
        similarities.append(likeness(wanted.logits, found.logits, prompt))
        shares.append(agreement(wanted, found, source.ends, source.next_logits))
    similarity, greedy = enough(similarities, precision), float(np.mean(shares))
    log.info("verified", extra={"similarity": similarity, "greedy": greedy, "prompts": len(prompts)})
    if greedy < GREEDY.get(precision, 0):
        raise RunFailed(Reason.VERIFICATION_FAILED, f"{greedy:.0%} of the greedy tokens are the original's, "
                        f"{GREEDY[precision]:.0%} is the least for {precision}")  # fmt: skip
    alike = Verification(similarity=min(1.0, similarity), greedy_agreement=greedy, prompts=len(prompts))
    return Look(original, said, alike)


def _same_text(prompt: str, wanted: Said, found: Said) -> None:
    if found.tokens != wanted.tokens:
        raise RunFailed(Reason.VERIFICATION_FAILED, f"the runtime's tokenizer cuts {prompt[:40]!r} in another way: "
                        f"{found.tokens[:8]} instead of {wanted.tokens[:8]}")  # fmt: skip
    if found.read_back != wanted.read_back:
        raise RunFailed(Reason.VERIFICATION_FAILED, f"tokens of {prompt[:40]!r} are not read back as the same text")


def agreement(
    wanted: Said, found: Said, ends: Collection[int], logits: Callable[[Sequence[int]], NDArray[np.float32]]
) -> float:
    """Share of the original's greedy tokens that the converted model says, too, up to the first other one. Where the
    original's logits of both are a tie, either is right, and what follows cannot be compared."""
    ours, theirs = _answer(wanted, ends), _answer(found, ends)
    for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            scores = logits([*wanted.tokens, *ours[:place]])
            tied = abs(float(scores[one] - scores[other])) < TIE * float(scores.std())
            return 1.0 if tied else place / len(ours)
    return min(len(ours), len(theirs)) / max(len(ours), len(theirs), 1) if ours or theirs else 1.0


def _answer(said: Said, ends: Collection[int]) -> list[int]:
    end = next((place for place, token in enumerate(said.greedy) if token in ends), None)
    return said.greedy[:end]
