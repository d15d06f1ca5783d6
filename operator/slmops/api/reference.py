"""The field reference from the models: ``python -m slmops.api.reference [--check] [FILE]``.

The same models that the CRDs come from, so the page cannot tell of a field that is not there. A shape that several kinds
use has one section, to which their tables link.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic.fields import FieldInfo

from slmops.api.base import API_VERSION, BOUND, DURATION, PERCENT, QUANTITY, ApiModel
from slmops.api.budget import AMOUNT
from slmops.api.crd import KINDS, StructuralSchema
from slmops.api.resource import Resource
from slmops.api.search import WORD

HEADER = f"""\
<!-- Generated from operator/slmops/api/ by `python -m slmops.api.reference`. Do not edit. -->
# Field reference

All fields of the four kinds of `{API_VERSION}`. The cluster knows the same: `kubectl explain edgedeployment.spec.strategy`.

A field without a default may be left out unless it says *required*; an object's defaults are those of its fields.
*duration* is a time with its unit (`90s`, `1h30m`, `2d`), *quantity* a Kubernetes quantity (`500m`, `4Gi`), *bound* a
number with its unit (`92%`, `200ms`, `600Mi`), *percentage* a share (`25%`), *count* a number or a share (`3`, `10%`).
*Rules* are checked by the API server when a manifest is applied.
"""
WORDS = {
    WORD: "number or word", AMOUNT: "number", DURATION: "duration", QUANTITY: "quantity", BOUND: "bound",
    PERCENT: "percentage",
}  # fmt: skip
BAR = r"\|"
Model = type[ApiModel]


def render() -> str:
    """The whole page."""
    used = {kind: list(dict.fromkeys(_reachable(_spec(kind)))) for kind in KINDS}
    told = {kind: list(dict.fromkeys(_reachable(_status(kind)))) for kind in KINDS}
    everywhere = [model for found in (*used.values(), *told.values()) for model in found]
    shared = [model for model in dict.fromkeys(everywhere) if everywhere.count(model) > 1]
    _check_names(everywhere)
    wishes = {model for found in used.values() for model in found}
    parts = [HEADER]
    for kind in KINDS:
        names = ", ".join(f"`{name}`" for name in (kind.plural, *kind.short_names))
        parts.append(f"## {kind.kind()}\n\n{_text(kind.__doc__ or '')} Names for `kubectl get`: {names}.\n")
        for model in (*used[kind], *told[kind]):
            if model not in shared:
                parts.append(_section(model, model in wishes))
    parts.append("## Shared shapes\n\nThe same in several kinds.\n")
    parts += [_section(model, model in wishes) for model in shared]
    return "\n".join(parts)


def _spec(kind: type[Resource[Any, Any]]) -> Model:
    return next(_models(kind.model_fields["spec"].annotation))


def _status(kind: type[Resource[Any, Any]]) -> Model:
    return next(_models(kind.model_fields["status"].annotation))


def _models(annotation: Any) -> Iterator[Model]:
    """The models that a field's type names, at any depth of lists, maps and options."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _reachable(model: Model, above: tuple[Model, ...] = ()) -> Iterator[Model]:
    """A model and all that its fields lead to, in the order of the fields."""
    yield model
    for field in model.model_fields.values():
        for child in _models(field.annotation):
            if child not in above:
                yield from _reachable(child, (*above, model))


def _check_names(models: list[Model]) -> None:
    """Sections are linked by name, so two shapes may not share one."""
    names = [model.__name__ for model in dict.fromkeys(models)]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise TypeError(f"two API models are named {', '.join(sorted(doubled))}")


def _section(model: Model, wish: bool) -> str:
    """A shape's table; defaults are told of what a user writes, not of what the operator does."""
    schema = model.model_json_schema(by_alias=True, schema_generator=StructuralSchema, mode="validation")
    lines = [f"### {model.__name__}\n", f"{_text(model.__doc__ or '')}\n"]
    head = ["Field", "Type", *(["Default"] if wish else []), "Meaning"]
    lines += [_row(head), _row(["---"] * len(head))]
    for field in model.model_fields.values():
        assert field.alias is not None
        node = schema["properties"][field.alias]
        default = [_default(field)] if wish else []
        lines.append(
            _row([f"`{field.alias}`", _type(node), *default, _text(field.description or "").replace("*", r"\*")])
        )
    if model.rules:
        lines.append(f"\nRules: {'; '.join(rule.message for rule in model.rules)}.")
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def _type(node: dict[str, Any]) -> str:
    if "$ref" in node:
        name = str(node["$ref"]).removeprefix("#/$defs/")
        return f"[{name}](#{name.lower()})"
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum") or [node["const"]])
    if "items" in node:
        return f"list of {_type(node['items'])}{_limits(node, 'Items')}"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of string to {_type(node['additionalProperties'])}"
    if "x-kubernetes-int-or-string" in node:
        return "count" if node["pattern"] == PERCENT else WORDS[node["pattern"]]
    return str(WORDS.get(node.get("pattern", ""), node["type"])) + _limits(node, "imum")


def _limits(node: dict[str, Any], suffix: str) -> str:
    low, high = node.get(f"min{suffix}"), node.get(f"max{suffix}")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    parts = [
        f"{word} {value}"
        for word, value in (("from", low), ("above", above), ("to", high), ("below", below))
        if value is not None
    ]
    return f", {' '.join(parts)}" if parts else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str | int | float):
        return f"`{value}`"
    if isinstance(value, list) and value:
        plain = [item.model_dump(by_alias=True, exclude_unset=True) if isinstance(item, ApiModel) else item
                 for item in value]  # fmt: skip
        return f"`{yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=1000).strip()}`"
    return ""


def _text(docstring: str) -> str:
    return " ".join(docstring.split())


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` say whether it is up to date."""
    path = Path(next((a for a in arguments if not a.startswith("-")), "docs/reference.md"))
    text = render()
    if "--check" in arguments:
        if not path.exists() or path.read_text() != text:
            print(f"not up to date: {path}; run `python -m slmops.api.reference`", file=sys.stderr)
            return 1
        return 0
    path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
