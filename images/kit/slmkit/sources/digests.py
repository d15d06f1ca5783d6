"""Digests that addresses carry: ``#sha256=…`` of one file's bytes, or over the files of a folder."""

import hashlib
import re
from collections.abc import Mapping

from slmkit.run import RunFailed
from slmops.contract import Reason, Source

DIGEST = re.compile(r"sha256=([0-9a-f]{64})")


def promised(source: Source, fragment: str) -> str:
    """The digest that an address carries; empty without one."""
    match = DIGEST.fullmatch(fragment)
    if fragment and not match:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri}: after # a digest is expected, sha256=<64 digits>")
    return match[1] if match else ""


def of_folder(source: Source, files: Mapping[str, str], wanted: str) -> str:
    """The sha256 of the lines ``<sha256 of the file>  <name>``, sorted by name, as ``sha256sum`` writes them; in-toto
    calls it dirHash. ``files``: digests by name. Raises RunFailed where another one is ``wanted``."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    found = hashlib.sha256(lines.encode()).hexdigest()
    if wanted not in ("", found):
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: the digest over the files is sha256={found}")
    return found
