"""What a verdict rests on becomes a document beside the model image, signed where that is asked."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from slm_bench.evidence import KIND, PREDICATE, publish
from slmkit import signing
from slmkit.run import Context, RunFailed
from slmops.contract import Artifact, EvidenceRun, Reason, Registry, Sink
from tests.unit.images.fakeregistry import FakeRegistry
from tests.unit.images.signers import signer

DOCUMENT = {"outcome": {"outcome": "Promoted"}, "nodes": [{"node": "n1"}]}


@pytest.fixture(params=[True, False], ids=["referrers API", "no referrers API"])
def registry(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    with FakeRegistry(referrers=request.param) as server:
        yield server


def image(registry: FakeRegistry, folder: Path, name: str) -> Artifact:
    (folder / "config.json").write_text(name)
    files = {"config.json": folder / "config.json"}
    sink = Sink(repository=f"{registry.host}/slm/{name}")
    return registry.client().push_artifact(sink, files, "application/vnd.slmops.model.v1", {})


def run(registry: FakeRegistry, **fields: object) -> EvidenceRun:
    known = {"run": "r", "document": DOCUMENT, "registry": Registry(plain_http=(registry.host,))}
    return EvidenceRun.model_validate(known | fields)


def test_each_image_has_one_document_however_many_pools_have_it(registry: FakeRegistry, tmp_path: Path) -> None:
    first, second = image(registry, tmp_path, "a"), image(registry, tmp_path, "b")
    images = {"farms": first.reference, "barns": first.reference, "yards": second.reference}
    report = publish(run(registry, images=images), Context(tmp_path))
    assert report.signer is None
    assert report.artifacts["farms"] == report.artifacts["barns"] != report.artifacts["yards"]
    client = registry.client()
    for made in (first, second):
        assert [json.loads(found) for found in client.referrers(made.reference, KIND)] == [DOCUMENT]
    said = {manifest["subject"]["digest"] for manifest in client.about(first.reference)}
    assert said == {first.digest}
    again = publish(run(registry, images=images), Context(tmp_path))
    assert again.artifacts == report.artifacts, "the same evidence is the same artefact"


def test_it_is_signed_as_a_statement_about_the_image(registry: FakeRegistry, tmp_path: Path) -> None:
    made, owner = image(registry, tmp_path, "a"), signer(tmp_path / "owner")
    report = publish(run(registry, images={"farms": made.reference}, key=owner.files), Context(tmp_path))
    assert report.signer == owner.fingerprint
    (bundle,) = registry.client().referrers(made.reference, signing.BUNDLE)
    statement = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    assert statement["predicateType"] == PREDICATE
    assert statement["predicate"] == DOCUMENT
    assert statement["subject"][0]["digest"] == {"sha256": made.digest.removeprefix("sha256:")}


def test_an_image_that_is_gone_has_no_evidence(registry: FakeRegistry, tmp_path: Path) -> None:
    gone = f"{registry.host}/slm/a@sha256:{'0' * 64}"
    with pytest.raises(RunFailed) as failed:
        publish(run(registry, images={"farms": gone}), Context(tmp_path))
    assert failed.value.reason in (Reason.SOURCE_NOT_FOUND, Reason.REGISTRY_REFUSED)
