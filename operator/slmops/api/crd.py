"""CRDs from the models: ``python -m slmops.api.crd [--check] [FOLDER]``.

Kubernetes accepts only *structural* schemas: no references, no unions, every field typed. What pydantic writes is
brought into that form here; anything that cannot be is an error at build time, not a surprise at apply time.
"""

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from slmops.api.base import (
    AUTO_OR_NAME,
    BOUND,
    DATA_KEY,
    DURATION,
    GROUP,
    NAME,
    OBJECT_NAME,
    PERCENT,
    QUANTITY,
    VERSION,
    ApiModel,
)
from slmops.api.budget import AMOUNT, CURRENCY
from slmops.api.distillation import Distillation
from slmops.api.edgedeployment import EdgeDeployment
from slmops.api.egress import CIDR, HOST
from slmops.api.finetune import FineTune
from slmops.api.lora import LAYER
from slmops.api.quantizedmodel import QuantizedModel
from slmops.api.resource import Resource
from slmops.api.search import WORD
from slmops.api.signing import AUDIENCE, IDENTITY, INSTANCE, ISSUER
from slmops.api.sources import DIGEST_REFERENCE, ENDPOINT, FILE, LICENSE, REPOSITORY, URI
from slmops.api.strategy import TIME, ZONE
from slmops.api.teacher import AZURE_VERSION, URL

KINDS: tuple[type[Resource[Any, Any]], ...] = (Distillation, FineTune, QuantizedModel, EdgeDeployment)
NAME_RULES = [
    {
        "rule": "size(self.metadata.name) <= 40",
        "message": "metadata.name is at most 40 characters: names of Jobs and Services are made from it",
    },
    {
        "rule": "self.metadata.name.matches('^[a-z]')",
        "message": "metadata.name begins with a letter: names of Services are made from it",
    },
    {
        "rule": "!self.metadata.name.contains('.')",
        "message": "metadata.name holds no dot: names of Jobs and Services are made from it",
    },
]


class StructuralSchema(GenerateJsonSchema):
    """pydantic's generator, less what Kubernetes has no word for."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """An optional field is absent, never null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Defaults of scalars are shown; those of objects are the defaults of their fields, those of lists are ours."""
        inner = self.generate_inner(schema["schema"])
        default = schema.get("default")
        if isinstance(default, str | int | float | bool) and default is not None:
            return {**inner, "default": default}
        return inner


def crd(kind: type[Resource[Any, Any]]) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind(),
                "listKind": f"{kind.kind()}List",
                "plural": kind.plural,
                "singular": kind.kind().lower(),
                "shortNames": list(kind.short_names),
                "categories": ["slm"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": c.name, "type": c.type, "jsonPath": c.path}
                        | ({"priority": c.priority} if c.priority else {})
                        for c in kind.columns
                    ],
                    "schema": {"openAPIV3Schema": schema(kind)},
                }
            ],
        },
    }


def schema(kind: type[Resource[Any, Any]]) -> dict[str, Any]:
    """The structural schema of a kind."""
    fields = kind.model_fields
    return {
        "type": "object",
        "description": _text(kind.__doc__ or ""),
        "required": ["spec"],
        "x-kubernetes-validations": NAME_RULES,
        "properties": {
            "apiVersion": {"type": "string", "description": f"Version of the schema: {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Kind of the resource: {kind.kind()}."},
            "metadata": {"type": "object"},
            "spec": _structural_root(fields["spec"].annotation),
            "status": _structural_root(fields["status"].annotation),
        },
    }


def _structural_root(model: Any) -> dict[str, Any]:
    assert isinstance(model, type)
    assert issubclass(model, ApiModel)
    raw = model.model_json_schema(by_alias=True, schema_generator=StructuralSchema, mode="validation")
    return _structural(raw, raw.get("$defs", {}), model.__name__)


HINTS = {
    DURATION: "expected a time with its unit, for example 90s, 1h30m, 2d",
    BOUND: "expected a number with its unit, for example 92%, 200ms, 600Mi, 30",
    PERCENT: "expected a share, for example 25%",
    QUANTITY: "expected a quantity, for example 2, 500m, 4Gi",
    AUTO_OR_NAME: "expected Auto or a name of small letters, digits and '-', for example cpu-int4",
    NAME: "expected a name of small letters, digits and '-', for example cpu-int4",
    URI: "expected an address that begins with hf://, oci://, https://, http://, s3:// or pvc:// and holds no password "
    "(name a Secret in credentials)",
    URL: "expected an address that begins with https:// or http:// and holds no password (name a Secret in "
    "credentials)",
    ENDPOINT: "expected a server's address without a path, for example https://minio.example:9000",
    LICENSE: "expected an SPDX identifier, for example Apache-2.0, or LicenseRef-<name>",
    HOST: "expected a name of small letters, for example api.deepseek.com or *.hf.co",
    CIDR: "expected a range of addresses, for example 10.0.0.7/32",
    AZURE_VERSION: "expected a version of the Azure OpenAI API, for example 2024-10-21",
    FILE: "expected a file inside the source, for example data/train.jsonl",
    OBJECT_NAME: "expected the name of a Secret, ConfigMap or service account, for example registry-login",
    WORD: 'expected a whole number, a word, or another number in quotes, for example 16, Cosine, "0.0002"',
    LAYER: "expected the name of a layer, for example q_proj",
    INSTANCE: "expected a server's address with https:// and without a path, for example https://fulcio.example",
    ISSUER: "expected an address that begins with https://, as the token's issuer is written there",
    IDENTITY: "expected an identity as the certificate has it, without blanks, for example "
    "https://kubernetes.io/namespaces/edge-ai/serviceaccounts/default",
    AUDIENCE: "expected sigstore, or a name that begins with it, for example sigstore-lab: another server must not take "
    "the token for its own",
    DATA_KEY: "expected a key of the Secret or ConfigMap, for example token",
    REPOSITORY: "expected a repository without tag or digest, for example registry.example/slm/farm-assistant",
    TIME: "expected hours and minutes, for example 22:00",
    ZONE: "expected the name of a time zone, for example Europe/Copenhagen or UTC",
    AMOUNT: 'expected a number, for example 20 or "2.50"',
    CURRENCY: "expected three letters of ISO 4217, for example EUR",
    DIGEST_REFERENCE: "expected an image by digest: registry.example/repository@sha256: and 64 hexadecimal digits",
}
COUNT = "expected a count or a share, for example 3 or 10%"
KEPT = (
    "type", "description", "default", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "minProperties", "maxProperties", "multipleOf", "x-kubernetes-int-or-string",
    "x-kubernetes-validations", "x-kubernetes-list-map-keys",
)  # fmt: skip
IGNORED = {
    "title", "properties", "required", "items", "additionalProperties", "$ref", "$defs", "const", "exclusiveMinimum",
    "exclusiveMaximum",
}  # fmt: skip


def _structural(node: dict[str, Any], defs: dict[str, Any], where: str) -> dict[str, Any]:
    if "$ref" in node:
        target = defs[node["$ref"].removeprefix("#/$defs/")]
        node = target | {key: value for key, value in node.items() if key != "$ref"}
    if unknown := set(node) - set(KEPT) - IGNORED:
        raise TypeError(f"{where}: Kubernetes has no structural form of {sorted(unknown)}")
    out = {key: node[key] for key in KEPT if key in node}
    if "description" in out:
        out["description"] = _text(out["description"])
    if out.get("pattern") in HINTS:
        out = _explained(out)
    if "const" in node:
        out["enum"] = [node["const"]]
    for bound, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in node:
            out |= {plain: node[bound], bound: True}
    if "properties" in node:
        out["properties"] = {
            name: _structural(child, defs, f"{where}.{name}") for name, child in node["properties"].items()
        }
        if node.get("required"):
            out["required"] = node["required"]
    elif isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(node["additionalProperties"], defs, f"{where}.*")
    if "items" in node:
        out["items"] = _structural(node["items"], defs, f"{where}[]")
        out["x-kubernetes-list-type"] = "map" if "x-kubernetes-list-map-keys" in out else "atomic"
    if "type" not in out and "x-kubernetes-int-or-string" not in out:
        raise TypeError(f"{where}: no type")
    return out


def _explained(node: dict[str, Any]) -> dict[str, Any]:
    """A pattern as a rule with words of its own: a regular expression tells no user what to write."""
    pattern = node.pop("pattern")
    matches, hint = f"self.matches(r'{pattern}')", HINTS[pattern]
    if "x-kubernetes-int-or-string" in node:
        matches, hint = f"type(self) == int ? self >= 0 : {matches}", COUNT if pattern == PERCENT else hint
    return node | {"x-kubernetes-validations": [{"rule": matches, "message": hint}]}


def _text(docstring: str) -> str:
    return " ".join(docstring.split())


def render(kind: type[Resource[Any, Any]]) -> str:
    """The CRD as YAML."""
    header = f"# Generated from operator/slmops/api/{kind.kind().lower()}.py by `make crds`. Do not edit.\n"
    return header + yaml.dump(crd(kind), Dumper=_NoAliases, sort_keys=False, allow_unicode=True, width=110)


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def main(arguments: list[str]) -> int:
    """Write the CRDs, or with ``--check`` say which differ."""
    folder = Path(next((a for a in arguments if not a.startswith("-")), "crds"))
    stale = []
    for kind in KINDS:
        path = folder / f"{kind.plural}.yaml"
        text = render(kind)
        if "--check" in arguments:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path))
        else:
            path.write_text(text)
    if stale:
        print(f"not up to date: {', '.join(stale)}; run `make crds`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
