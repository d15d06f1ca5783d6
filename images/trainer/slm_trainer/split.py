"""Which records are held out."""

import hashlib

from slmkit.data import Example


def split(examples: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(training, held out), by the hash of the prompt: the same record is always on the same side."""

    def held(example: Example) -> bool:
        return int.from_bytes(hashlib.sha256(repr(example.prompt).encode()).digest()[:4]) / 2**32 < share

    return [e for e in examples if not held(e)], [e for e in examples if held(e)]
