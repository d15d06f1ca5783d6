"""How something was made: an in-toto statement with SLSA's provenance predicate (https://slsa.dev/spec/v1.1/provenance).

``externalParameters`` is the run's configuration, whose digest the artefact carries in an annotation;
``resolvedDependencies`` are its inputs by digest or revision, and the image whose code ran.
"""

import json
import re
from datetime import datetime
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from slmkit.facts import Facts, plain
from slmops import __version__
from slmops.contract import Artifact

MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
PREDICATE_TYPE = "in-toto.io/predicate-type"
"""Annotation by which readers choose among statements without fetching them."""
BUILD_TYPE = "https://slmops.dev/build-types/{}/v1"
BUILDER = "https://slmops.dev/operator"
OCI = re.compile(r"(?:oci://)?(?P<name>[^\s@]+)@sha256:(?P<digest>[0-9a-f]{64})")
FILE = re.compile(r"https?://[^\s#]+#sha256=(?P<digest>[0-9a-f]{64})")
FOLDER = re.compile(r"(?:s3|pvc)://[^\s#]+#sha256=(?P<digest>[0-9a-f]{64})")
HUB = re.compile(r"hf://(?P<name>[^\s@]+)@(?P<commit>[0-9a-f]{7,64})")


def statement(made: Artifact, facts: Facts, began: datetime, ended: datetime) -> bytes:
    """The statement of something published, as JSON. Raises ValueError where it would not be one."""
    name, _, digest = made.reference.partition("@sha256:")
    builder: dict[str, Any] = {"id": BUILDER, "version": {"slmops": __version__}}
    if facts.run.image:
        builder["builderDependencies"] = [_descriptor("image", facts.run.image)]
    figures = {role: facts.measured(role, steady=False) for role in facts.figures}
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE.format(str(facts.configuration.get("type", "run")).lower()),
            "externalParameters": facts.configuration,
            "internalParameters": {"requestedBy": dict(sorted(facts.run.annotations.items())), "figures": figures},
            "resolvedDependencies": [_descriptor(role, uri) for role, uri in sorted(facts.inputs.items())],
        },
        "runDetails": {
            "builder": builder,
            "metadata": {
                "invocationId": facts.run.run,
                "startedOn": began.isoformat(),
                "finishedOn": ended.isoformat(),
            },
        },
    }
    checked = MessageToDict(ParseDict(predicate, Provenance()))
    made_of = Statement([ResourceDescriptor(name=name, digest={"sha256": digest}).pb], PREDICATE, checked)
    made_of.validate()
    return json.dumps(plain(MessageToDict(made_of.pb)), sort_keys=True).encode()


def dependencies(document: bytes, digest: str) -> dict[str, str]:
    """Inputs by role, read from a statement about just this digest. Raises ValueError when it is none."""
    try:
        said = ParseDict(json.loads(document), Statement([], "", {}).pb, ignore_unknown_fields=True)
        about = {f"sha256:{subject.digest['sha256']}" for subject in said.subject}
        if said.predicate_type != PREDICATE or about != {digest}:
            raise ValueError(f"the statement is about {', '.join(sorted(about))} and not about {digest}")
        predicate = ParseDict(MessageToDict(said.predicate), Provenance(), ignore_unknown_fields=True)
    except (ParseError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a statement of provenance: {error}") from None
    return {each.name: each.uri for each in predicate.build_definition.resolved_dependencies}


def _descriptor(role: str, uri: str) -> dict[str, Any]:
    """An input, with the digest that its address holds. What has an address alone is named by it."""
    found: dict[str, Any] = {"name": role, "uri": uri}
    if match := OCI.fullmatch(uri):
        found["digest"] = {"sha256": match["digest"]}
    elif match := HUB.fullmatch(uri):
        found["digest"] = {"gitCommit": match["commit"]}
    elif match := FILE.fullmatch(uri):
        found["digest"] = {"sha256": match["digest"]}
    elif match := FOLDER.fullmatch(uri):
        found["digest"] = {"dirHash": match["digest"]}
    return found
