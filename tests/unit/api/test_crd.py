"""The CRDs: up to date, structural, described to the last field, and with rules that name fields which exist."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

from slmops.api import crd
from slmops.api.base import ApiModel, Rule
from slmops.api.resource import Resource
from tests.unit.builders import body

ROOT = Path(__file__).parents[3]
CRDS = {kind.kind(): crd.crd(kind) for kind in crd.KINDS}
SCHEMAS = {name: found["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for name, found in CRDS.items()}
RENDERED = cache(crd.render)
Node = dict[str, Any]

every_kind = pytest.mark.parametrize("kind", CRDS)


def nodes(schema: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Every schema inside a schema, itself included."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key, step in (("items", "[]"), ("additionalProperties", ".*")):
        if key in schema:
            yield from nodes(schema[key], path + step)


def rules(kind: str) -> Iterator[tuple[str, Node, dict[str, str]]]:
    """Every CEL rule of a kind with the schema that it stands on."""
    for path, node in nodes(SCHEMAS[kind]):
        for rule in node.get("x-kubernetes-validations", []):
            yield path, node, rule


def at(node: Node, path: str) -> Node | None:
    """The schema of the field that a path such as ``.status.pools[*].name`` or ``.gates`` leads to."""
    for step in re.findall(r"[^.\[\]]+|\[[^\]]*\]", path):
        found = node.get("items") if step.startswith("[") else node.get("properties", {}).get(step)
        found = found if found is not None else node.get("additionalProperties")
        if found is None:
            return None
        node = found
    return node


@pytest.mark.parametrize("folder", ["crds", "charts/slmops/files/crds"])
@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.kind())
def test_the_committed_crd_is_what_the_models_say(folder: str, kind: type[Resource[Any, Any]]) -> None:
    committed = (ROOT / folder / f"{kind.plural}.yaml").read_text()
    assert committed == RENDERED(kind), "run `make crds`"
    assert yaml.load(committed, yaml.CSafeLoader) == CRDS[kind.kind()]


def test_check_names_what_is_out_of_date_and_leaves_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crd, "render", RENDERED)
    assert crd.main([str(tmp_path)]) == 0
    assert crd.main(["--check", str(tmp_path)]) == 0
    stale = tmp_path / "finetunes.yaml"
    stale.write_text("old")
    (tmp_path / "distillations.yaml").unlink()
    assert crd.main(["--check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "finetunes.yaml" in said
    assert "distillations.yaml" in said
    assert "quantizedmodels.yaml" not in said
    assert stale.read_text() == "old"


@every_kind
def test_a_rule_asks_whether_a_field_is_there_before_it_reads_it(kind: str) -> None:
    """What is left out, and has no default in the schema, is no key: the API server would refuse the whole in its words."""
    careless = []
    for path, node, rule in rules(kind):
        for field, below in re.findall(r"self\.(\w+)(?:\.(\w+)\b(?!\())?", rule["rule"]):
            for name, owner in ((field, node), (f"{field}.{below}", at(node, field))):
                last = name.rpartition(".")[2]
                known = (owner or {}).get("properties", {})
                there = last not in known or last in (owner or {}).get("required", []) or "default" in known[last]
                if not there and field != "metadata" and f"has(self.{name})" not in rule["rule"]:
                    careless.append((path, name, rule["rule"]))
    assert careless == []


@every_kind
def test_every_field_is_described(kind: str) -> None:
    silent = [
        path for path, node in nodes(SCHEMAS[kind])
        if path != ".metadata" and not path.endswith(("[]", ".*")) and len(node.get("description", "")) < 5
    ]  # fmt: skip
    assert silent == []


@every_kind
def test_every_schema_is_structural(kind: str) -> None:
    for path, node in nodes(SCHEMAS[kind]):
        assert ("type" in node) != ("x-kubernetes-int-or-string" in node), path
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const", "nullable"} & set(node), path
        assert ("items" in node) == (node.get("type") == "array"), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert set(node.get("required", [])) <= set(node.get("properties", {})), path


@every_kind
def test_every_default_keeps_the_fields_own_bounds(kind: str) -> None:
    for path, node in nodes(SCHEMAS[kind]):
        if "default" not in node:
            continue
        value = node["default"]
        assert value in node.get("enum", [value]), path
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert node.get("minimum", value) <= value <= node.get("maximum", value), path


@every_kind
def test_every_rule_has_words_for_the_user_and_points_to_a_field_that_exists(kind: str) -> None:
    for path, node, rule in rules(kind):
        assert len(rule["message"]) > 10, path
        assert "self" not in rule["message"], path
        if "fieldPath" in rule:
            assert at(node, rule["fieldPath"]) is not None, (path, rule)


@every_kind
def test_every_rule_reads_fields_that_exist_and_asks_first_where_one_may_be_absent(kind: str) -> None:
    for path, node, rule in rules(kind):
        if "properties" not in node or path == "":
            continue
        text = re.sub(r"'[^']*'", "''", rule["rule"])
        asked = set(re.findall(r"has\((?:self|oldSelf)\.([A-Za-z.]+)\)", text))
        for field in set(re.findall(r"\b(?:self|oldSelf)\.([A-Za-z.]+)", text)):
            owner, _, method = field.rpartition(".")
            field = owner if method in ("size", "matches", "contains", "startsWith", "all") else field
            found = at(node, f".{field}")
            assert found is not None, (path, field)
            within, _, name = field.rpartition(".")
            needed = (at(node, f".{within}") or {}).get("required", []) if within else node.get("required", [])
            there = name in needed and (not within or within in asked)
            sure = "default" in found or there or field in asked
            assert sure, f"{path}: {field} may be absent where the rule reads it"


@every_kind
def test_every_pattern_comes_with_words(kind: str) -> None:
    """A bare pattern is shown to users as a regular expression; only names of a model's layers are left with one."""
    bare = {path for path, node in nodes(SCHEMAS[kind]["properties"]["spec"]) if "pattern" in node}
    assert bare <= {".lora.targetModules[]"}


@every_kind
def test_lists_of_named_things_are_maps_by_name(kind: str) -> None:
    for path, node in nodes(SCHEMAS[kind]):
        if node.get("type") != "array":
            continue
        keys = node.get("x-kubernetes-list-map-keys")
        assert node["x-kubernetes-list-type"] == ("map" if keys else "atomic"), path
        named = "name" in node["items"].get("properties", {})
        if path == ".status.comparison":
            assert keys == ["name", "precision"], "a variant is there in each precision that was built"
            continue
        assert keys == (["name"] if named and path != ".status.pools[].classes" else None), path
        assert set(keys or ()) <= set(node["items"].get("required", [])), path


@every_kind
def test_lists_that_rules_walk_over_are_bounded(kind: str) -> None:
    """The API server refuses a CRD whose rules could cost too much; an unbounded list is how that happens."""
    for path, node in nodes(SCHEMAS[kind]["properties"]["spec"]):
        inner = node.get("items") or node.get("additionalProperties")
        if inner and any("x-kubernetes-validations" in below for _, below in nodes(inner)):
            assert "maxItems" in node or "maxProperties" in node, path


@every_kind
def test_every_printer_column_shows_a_field_that_exists(kind: str) -> None:
    version = CRDS[kind]["spec"]["versions"][0]
    for column in version["additionalPrinterColumns"]:
        path = column["jsonPath"]
        if path == ".metadata.creationTimestamp":
            assert column["type"] == "date"
            continue
        found = at(SCHEMAS[kind], path)
        assert found is not None, path
        many = "[*]" in path
        assert column["type"] == ("string" if many else found["type"]), path


def test_columns_are_found_missing_by_the_test_above() -> None:
    assert at(SCHEMAS["FineTune"], ".status.progres.percent") is None
    assert at(SCHEMAS["FineTune"], ".status.evaluation.model.ExactMatch") == {"type": "number"}


def test_names_are_those_of_the_design_and_nobodys_twice() -> None:
    names = {kind: found["spec"]["names"] for kind, found in CRDS.items()}
    assert {kind: name["shortNames"] for kind, name in names.items()} == {
        "Distillation": ["distill"], "FineTune": ["ft"], "QuantizedModel": ["qm"], "EdgeDeployment": ["edge"]
    }  # fmt: skip
    words = [word for name in names.values() for word in (name["plural"], name["singular"], *name["shortNames"])]
    assert len(words) == len(set(words))


@every_kind
def test_status_is_a_subresource_and_the_category_is_slm(kind: str) -> None:
    found = CRDS[kind]
    version = found["spec"]["versions"][0]
    assert version["subresources"] == {"status": {}}
    assert found["spec"]["names"]["categories"] == ["slm"]
    assert found["metadata"]["name"] == f"{found['spec']['names']['plural']}.slmops.dev"
    assert (version["served"], version["storage"], found["spec"]["scope"]) == (True, True, "Namespaced")


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Distillation", {"objective": {}, "training": {}}),
        ("FineTune", {"lora": {}, "evaluation": {}, "run": {"tolerations": [{}]}}),
        ("QuantizedModel", {"variants": [{"name": "a"}], "generation": {}}),
    ],
)
def test_the_models_parse_the_schemas_own_defaults_to_the_same_resource(kind: str, spec: Node) -> None:
    """What the API server fills in is what the operator would have assumed."""
    model = next(found for found in crd.KINDS if found.kind() == kind)
    plain = body(kind, spec)
    filled = _filled(plain["spec"], SCHEMAS[kind]["properties"]["spec"])
    assert filled != plain["spec"]
    assert model.model_validate(plain | {"spec": filled}).spec == model.model_validate(plain).spec


def _filled(value: Any, node: Node) -> Any:
    """A value with the schema's defaults, as the API server stores it."""
    if isinstance(value, dict) and "properties" in node:
        defaults = {name: child["default"] for name, child in node["properties"].items() if "default" in child}
        return defaults | {k: _filled(v, node["properties"].get(k, {})) for k, v in value.items()}
    return [_filled(item, node["items"]) for item in value] if isinstance(value, list) else value


# --- the generator -------------------------------------------------------------------------------------------------


class _Either(ApiModel):
    """Two things in one field."""

    value: int | list[int] = 1
    """One of them."""


class _Odd(ApiModel):
    """Bounds that Kubernetes writes in another way."""

    rules = (Rule("self.share < 1.0", "a share is less than one", "share"),)

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Without its ends."""


def test_a_union_is_refused_when_generating() -> None:
    with pytest.raises(TypeError, match=r"_Either\.value"):
        crd._structural_root(_Either)


def test_bounds_without_their_ends_are_written_in_kubernetes_form() -> None:
    schema = crd._structural_root(_Odd)
    share = schema["properties"]["share"]
    assert share == {"type": "number", "description": "Without its ends.", "default": 0.5, "minimum": 0, "maximum": 1,
                     "exclusiveMinimum": True, "exclusiveMaximum": True}  # fmt: skip
    assert schema["x-kubernetes-validations"] == [
        {"rule": "self.share < 1.0", "message": "a share is less than one", "fieldPath": ".share"}
    ]
