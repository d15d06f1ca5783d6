"""A model card in Markdown with the front matter of model hubs, made from the same facts as all else.

It lies in the artefact as ``README.md``. It holds no time, so equal models have equal cards.
"""

from typing import Any

import yaml

from slmkit.facts import Facts
from slmkit.provenance import HUB
from slmops.contract import ADAPTER_TYPE

FILE = "README.md"
SHARES = {"ExactMatch", "Accuracy", "F1", "BLEU", "ROUGE"}


def card(facts: Facts) -> str:
    """The card of a model or an adapter."""
    front = yaml.safe_dump(_front(facts), sort_keys=False, allow_unicode=True, width=10**6)
    parts = [
        f"---\n{front}---\n\n# {facts.title}\n",
        _opening(facts),
        _table("What it is made from", ("Role", "Address"), sorted(facts.inputs.items())),
        _figures(facts),
        _training(facts),
        _lineage(facts),
    ]
    return "\n".join(part for part in parts if part)


def _front(facts: Facts) -> dict[str, Any]:
    adapter = facts.artifact_type == ADAPTER_TYPE
    base = facts.inputs.get("base", "")
    data = [uri for role, uri in sorted(facts.inputs.items()) if role in ("train", "validation")]
    results = [
        {"type": name, "name": name, "value": value} for name, value in facts.measured().items() if name in SHARES
    ]
    front: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        **_licence(facts.licence),
        "tags": ["slmops", str(facts.configuration.get("method", "")).lower() or "full"],
    }
    if base:
        front |= {"base_model": _plain(base), "base_model_relation": "adapter" if adapter else "finetune"}
    if data:
        front["datasets"] = [_plain(uri) for uri in dict.fromkeys(data)]
    if results:
        front["metrics"] = [result["name"] for result in results]
        roles = ("evaluation", "validation", "train")
        held_out = _plain(next((facts.inputs[role] for role in roles if role in facts.inputs), "held-out records"))
        front["model-index"] = [{"name": facts.title, "results": [{
            "task": {"type": "text-generation"},
            "dataset": {"type": held_out, "name": "held-out records"},
            "metrics": results,
        }]}]  # fmt: skip
    return front


def _licence(expression: str) -> dict[str, str]:
    """As hubs write it: small letters for SPDX's identifiers, a name for what SPDX does not know."""
    if expression.startswith("LicenseRef-") and " " not in expression:
        return {"license": "other", "license_name": expression.removeprefix("LicenseRef-")}
    return {"license": expression if " " in expression else expression.lower()} if expression else {}


def _plain(uri: str) -> str:
    """The hub's own name of what is on the hub; the address of everything else."""
    match = HUB.fullmatch(uri)
    return match["name"] if match else uri


def _opening(facts: Facts) -> str:
    base = facts.inputs.get("base")
    if facts.artifact_type == ADAPTER_TYPE:
        return f"A {facts.configuration.get('method')} adapter for `{base}`, in PEFT's layout.\n"
    if base:
        return f"A model trained further from `{base}`, as safetensors in the layout of transformers.\n"
    return "A model trained from nothing, as safetensors in the layout of transformers.\n"


def _figures(facts: Facts) -> str:
    """A column for each model that was measured."""
    roles = [role for role in ("model", "baseline", "teacher", "reference") if facts.measured(role)]
    roles += sorted(role for role in facts.figures if role not in roles and facts.measured(role))
    names = list(dict.fromkeys(name for role in roles for name in facts.measured(role)))
    rows = [(name, *(_shown(facts.measured(role).get(name)) for role in roles)) for name in names]
    return _table("What was measured", ("Figure", *roles), rows)


def _training(facts: Facts) -> str:
    wanted = facts.configuration.get("hyperparameters") or {}
    return _table("How it was trained", ("Setting", "Value"), [(key, str(wanted[key])) for key in sorted(wanted)])


def _lineage(facts: Facts) -> str:
    lines = [f"- configuration: `{facts.configuration_digest}`"]
    if facts.run.image:
        lines.append(f"- code: `{facts.run.image}`")
    lines.append("- provenance (in-toto, SLSA) and bill of materials (CycloneDX): the referrers of this artefact")
    return "## Lineage\n\n" + "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return f"## {title}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"
