"""What has to be signed is not fetched unless it is: with the right key, of just this digest, wherever the list is kept."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from slm_bench.sign import sign
from slm_bench.verify import verify
from slmkit import keys, signing, trust
from slmkit.run import Context, RunFailed, execute
from slmkit.sources import fetch
from slmops.contract import Artifact, Reason, Report, SigningKey, SignRun, Sink, Source, Verify, VerifyRun
from tests.unit.images.fakeregistry import Answer, FakeRegistry, sha256
from tests.unit.images.signers import Signer, signer

NAME = "slm/model"
IN_TOTO, BOM = "application/vnd.in-toto+json", "application/vnd.cyclonedx+json"
EVALUATION = "application/vnd.slmops.evaluation.v1+json"
SLSA = "https://slsa.dev/provenance/v1"


@pytest.fixture(params=[True, False], ids=["referrers API", "no referrers API"])
def registry(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    with FakeRegistry(referrers=request.param) as server:
        yield server


@pytest.fixture
def owner(tmp_path: Path) -> Signer:
    return signer(tmp_path / "owner")


@pytest.fixture
def stranger(tmp_path: Path) -> Signer:
    return signer(tmp_path / "stranger")


def sink(registry: FakeRegistry) -> Sink:
    return Sink(repository=f"{registry.host}/{NAME}")


def push(registry: FakeRegistry, folder: Path, content: str = "{}") -> Artifact:
    path = folder / "config.json"
    path.write_text(content)
    client = registry.client()
    made = client.push_artifact(sink(registry), {"config.json": path}, "application/vnd.slmops.model.v1", {})
    client.tag(sink(registry), made, "v1")
    return made


def digest(made: Artifact) -> str:
    return made.reference.partition("@")[2]


def attach(registry: FakeRegistry, made: Artifact, kind: str, content: bytes) -> str:
    return digest(registry.client().attach(sink(registry), made, kind, content, {}))


def described(registry: FakeRegistry, made: Artifact) -> Artifact:
    """The artefact with the documents that a run attaches."""
    documents = (
        attach(registry, made, IN_TOTO, signing.statement(digest(made), SLSA, {"buildDefinition": {}})),
        attach(registry, made, BOM, b'{"bomFormat": "CycloneDX"}'),
        attach(registry, made, EVALUATION, b'{"models": {}}'),
    )
    return made.model_copy(update={"documents": documents})


def signed(registry: FakeRegistry, by: Signer, made: Artifact, folder: Path) -> Report:
    run = SignRun(run="x-sign-1", artifacts={"model": made}, key=by.files, output=sink(registry),
                  registry=registry.settings)  # fmt: skip
    return sign(run, Context(folder))


def refusal(source: Source, registry: FakeRegistry, folder: Path) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        fetch(source, folder / "fetched", registry.client())
    assert not (folder / "fetched" / "config.json").exists(), "nothing of it may have come"
    return failed.value


# --- what is signed is let in


def test_what_is_signed_with_the_key_is_fetched_by_its_digest(
    registry: FakeRegistry, owner: Signer, tmp_path: Path
) -> None:
    made = push(registry, tmp_path)
    assert signed(registry, owner, made, tmp_path).signer == owner.fingerprint
    address = fetch(owner.wants(f"{registry.host}/{NAME}:v1"), tmp_path / "fetched", registry.client())
    assert address == f"oci://{made.reference}"
    assert (tmp_path / "fetched" / "config.json").read_text() == "{}"
    assert trust.seen[address] == owner.fingerprint


def test_a_signature_of_the_older_form_counts(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    owner.older(registry, NAME, digest(made))
    assert trust.verified(owner.wants(made.reference), registry.client()).uri == f"oci://{made.reference}"


def test_no_more_is_asked_than_is_needed(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    """A registry may refuse to tell of a tag that it does not have."""
    made = push(registry, tmp_path)
    signed(registry, owner, made, tmp_path)
    registry.always("GET .*[.]sig", Answer(403))
    assert trust.verified(owner.wants(made.reference), registry.client()).uri == f"oci://{made.reference}"
    assert (
        refusal(owner.wants(made.reference, provenance=True), registry, tmp_path).reason is Reason.SOURCE_UNAUTHORIZED
    )


def test_one_of_several_signatures_is_enough(
    registry: FakeRegistry, owner: Signer, stranger: Signer, tmp_path: Path
) -> None:
    made = push(registry, tmp_path)
    for by in (stranger, owner):
        signed(registry, by, made, tmp_path)
    for by in (stranger, owner):
        assert trust.verified(by.wants(made.reference), registry.client()).uri == f"oci://{made.reference}"


def test_who_signs_twice_adds_nothing(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    made = described(registry, push(registry, tmp_path))
    signed(registry, owner, made, tmp_path)
    before = dict(registry.manifests)
    signed(registry, owner, made, tmp_path)
    assert registry.manifests == before


def test_a_tag_that_moves_between_look_and_fetch_changes_nothing(
    registry: FakeRegistry, owner: Signer, tmp_path: Path
) -> None:
    made = push(registry, tmp_path)
    signed(registry, owner, made, tmp_path)
    source = trust.verified(owner.wants(f"{registry.host}/{NAME}:v1"), registry.client())
    push(registry, tmp_path, "another")
    assert registry.client().pull(source, tmp_path / "fetched") == f"oci://{made.reference}"


# --- what is not is refused, with the reason


def test_what_nobody_has_signed_is_refused(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    made = described(registry, push(registry, tmp_path))
    failed = refusal(owner.wants(f"{registry.host}/{NAME}:v1"), registry, tmp_path)
    assert (failed.reason, failed.message) == (Reason.SIGNATURE_MISSING, f"{made.reference} is not signed")
    assert registry.count(f"GET /v2/{NAME}/blobs/") == 0


def test_another_key_is_refused(registry: FakeRegistry, owner: Signer, stranger: Signer, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    signed(registry, owner, made, tmp_path)
    failed = refusal(stranger.wants(made.reference), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_INVALID
    assert f"is not signed with the key {stranger.fingerprint}" in failed.message


def test_another_key_is_refused_in_the_older_form(
    registry: FakeRegistry, owner: Signer, stranger: Signer, tmp_path: Path
) -> None:
    made = push(registry, tmp_path)
    owner.older(registry, NAME, digest(made))
    assert refusal(stranger.wants(made.reference), registry, tmp_path).reason is Reason.SIGNATURE_INVALID


def test_a_replaced_layer_is_refused(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    """Who may push can put other bytes in a layer's place only together with another manifest."""
    made = push(registry, tmp_path)
    signed(registry, owner, made, tmp_path)
    push(registry, tmp_path, "replaced")  # under the same tag
    failed = refusal(owner.wants(f"{registry.host}/{NAME}:v1"), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_MISSING


def test_a_registry_that_gives_other_bytes_for_a_layer_is_refused(
    registry: FakeRegistry, owner: Signer, tmp_path: Path
) -> None:
    made = push(registry, tmp_path)
    signed(registry, owner, made, tmp_path)
    registry.always(f"GET /v2/{NAME}/blobs/{sha256(b'{}')}", Answer(body=b"[]"))
    failed = refusal(owner.wants(made.reference), registry, tmp_path)
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert "does not have digest" in failed.message


def test_a_manifest_with_another_layer_under_the_same_digest_is_refused(
    registry: FakeRegistry, owner: Signer, tmp_path: Path
) -> None:
    made = push(registry, tmp_path)
    signed(registry, owner, made, tmp_path)
    manifest = registry.manifest(NAME, digest(made))
    manifest["layers"][0]["digest"] = sha256(b"[]")
    registry.always(f"GET /v2/{NAME}/manifests/{digest(made)}", Answer(body=json.dumps(manifest).encode()))
    assert refusal(owner.wants(made.reference), registry, tmp_path).reason is Reason.UNSAFE_SOURCE


@pytest.mark.parametrize("older", [False, True], ids=["bundle", "older form"])
def test_a_signature_moved_to_something_else_is_refused(
    registry: FakeRegistry, owner: Signer, tmp_path: Path, older: bool
) -> None:
    good, bad = push(registry, tmp_path), push(registry, tmp_path, "bad")
    if older:
        owner.older(registry, NAME, digest(bad), about=digest(good))
    else:
        said = signing.statement(digest(good), trust.SIGNED, {})
        attach(registry, bad, signing.BUNDLE, signing.bundle(owner.key, said))
    failed = refusal(owner.wants(bad.reference), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_INVALID
    assert "about something else: 1" in failed.message


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 5},
        {"layers": [5]},
        {"layers": [{"mediaType": signing.BUNDLE}]},
        {"layers": [{"mediaType": signing.SIMPLE, "annotations": [], "digest": sha256(b"{}")}]},
        {"subject": "text"},
    ],
    ids=["no layers", "a number", "no digest", "annotations that are none", "another subject"],
)
def test_whatever_a_registry_says_is_no_signature(
    registry: FakeRegistry, owner: Signer, tmp_path: Path, change: dict[str, Any]
) -> None:
    made = push(registry, tmp_path)
    place = attach(registry, made, signing.BUNDLE, b"{}")
    odd = json.dumps(registry.manifest(NAME, place) | change).encode()
    index = json.dumps({"manifests": [{"digest": sha256(odd)}]}).encode()
    registry.always("GET .*/referrers/", Answer(body=index))
    registry.always(f"GET .*/manifests/{sha256(odd)}", Answer(body=odd))
    failed = refusal(owner.wants(made.reference), registry, tmp_path)
    assert failed.reason in (Reason.SIGNATURE_MISSING, Reason.SIGNATURE_INVALID, Reason.SOURCE_NOT_FOUND)


def test_what_refers_to_it_has_gone_and_it_is_refused(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    signed(registry, owner, made, tmp_path)
    trust.verified(owner.wants(made.reference), registry.client())
    for place in [
        key for key, (_, body) in registry.manifests.items() if b'"subject"' in body or b'"manifests"' in body
    ]:
        del registry.manifests[place]
    assert refusal(owner.wants(made.reference), registry, tmp_path).reason is Reason.SIGNATURE_MISSING


def test_an_attestation_alone_is_no_signature(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    said = signing.statement(digest(made), SLSA, {})
    attach(registry, made, signing.BUNDLE, signing.bundle(owner.key, said))
    assert refusal(owner.wants(made.reference), registry, tmp_path).reason is Reason.SIGNATURE_MISSING


def changed(content: bytes, change: Callable[[Any], None]) -> bytes:
    said = json.loads(content)
    change(said)
    return json.dumps(said).encode()


def put(*place: str, value: Any) -> Callable[[Any], None]:
    def change(said: Any) -> None:
        for part in place[:-1]:
            said = said[part]
        said[place[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("dsseEnvelope", "payload", value=base64.b64encode(b"{}").decode()),
        put("dsseEnvelope", "payload", value=5),
        put("dsseEnvelope", "payload", value="***"),
        put("dsseEnvelope", "payloadType", value="text/plain"),
        put("dsseEnvelope", "signatures", value=[]),
        put("dsseEnvelope", "signatures", value=[{"sig": base64.b64encode(b"no signature").decode()}]),
        put("dsseEnvelope", value=[]),
    ],
    ids=["payload", "payload no text", "payload no base64", "type", "no signature", "no DER", "no envelope"],
)
def test_a_bundle_that_was_changed_is_none(owner: Signer, change: Callable[[Any], None]) -> None:
    content = signing.bundle(owner.key, signing.statement(sha256(b"x"), trust.SIGNED, {}))
    public = owner.key.public_key()
    assert signing.opened(public, content) == (trust.SIGNED, {sha256(b"x")})
    with pytest.raises(signing.NotSignedError):
        signing.opened(public, changed(content, change))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_bundle_is_no_signature(owner: Signer, content: bytes) -> None:
    with pytest.raises(signing.NotSignedError):
        signing.opened(owner.key.public_key(), content)
    with pytest.raises(signing.NotSignedError):
        signing.opened_simple(owner.key.public_key(), content, "AAAA")


@pytest.mark.parametrize("said", [b"{}", b"[]", b'{"_type": "https://in-toto.io/Statement/v1", "subject": [5]}',
                                  b'{"_type": "other", "predicateType": "x", "subject": []}'])  # fmt: skip
def test_what_is_signed_and_no_statement_says_nothing(owner: Signer, said: bytes) -> None:
    with pytest.raises(signing.NotSignedError):
        signing.opened(owner.key.public_key(), signing.bundle(owner.key, said))


def test_a_statement_that_is_signed_as_something_else_says_nothing(owner: Signer) -> None:
    """Whoever signs texts with the same key has not signed what a text happens to look like."""
    said = signing.statement(sha256(b"x"), trust.SIGNED, {})
    signature = owner.key.sign(signing.encoded("text/plain", said), ec.ECDSA(hashes.SHA256()))
    envelope = {"payload": base64.b64encode(said).decode(), "payloadType": "text/plain",
                "signatures": [{"sig": base64.b64encode(signature).decode()}]}  # fmt: skip
    with pytest.raises(signing.NotSignedError, match="no statement"):
        signing.opened(owner.key.public_key(), json.dumps({"dsseEnvelope": envelope}).encode())


def test_only_registries_hold_signatures(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    source = Source(uri="hf://org/name", verify=Verify(key=str(owner.public)))
    assert refusal(source, registry, tmp_path).reason is Reason.INVALID_CONFIGURATION


# --- what cosign itself has written

COSIGN = Path(__file__).parent / "cosign"
"""A key pair (its password is "password") and signatures of one digest in both forms, by cosign 3.1.3."""
ABOUT = "sha256:b8aec5feb8a4965d6f66a524b6a1387d3ba2c68331d84c85bb390a9073493133"


def test_what_cosign_has_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("password")
    private = keys.private_key(SigningKey(path=str(COSIGN / "cosign.key"), password=str(tmp_path / "password")))
    public = keys.public_key(COSIGN / "cosign.pub")
    assert keys.fingerprint(private.public_key()) == keys.fingerprint(public)
    content = (COSIGN / "bundle.json").read_bytes()
    assert signing.opened(public, content) == (trust.SIGNED, {ABOUT})
    assert json.loads(content)["verificationMaterial"]["publicKey"]["hint"] == keys.hint(public)
    payload, signature = (COSIGN / "simple.json").read_bytes(), (COSIGN / "simple.sig").read_text()
    assert signing.opened_simple(public, payload, signature) == ABOUT


def test_ours_says_the_same_as_cosigns(tmp_path: Path) -> None:
    """All but the signature, which is another one each time that cosign signs, and the spelling of the statement."""
    (tmp_path / "password").write_text("password")
    private = keys.private_key(SigningKey(path=str(COSIGN / "cosign.key"), password=str(tmp_path / "password")))
    ours = json.loads(signing.bundle(private, signing.statement(ABOUT, trust.SIGNED, {})))
    theirs = json.loads((COSIGN / "bundle.json").read_bytes())
    statements = []
    for found in (ours, theirs):
        found["dsseEnvelope"].pop("signatures")
        statements.append(json.loads(base64.b64decode(found["dsseEnvelope"].pop("payload"))))
    assert ours == theirs
    statements[1]["subject"][0].pop("annotations")
    assert statements[0] == statements[1]


# --- provenance


def test_provenance_counts_once_it_is_signed(
    registry: FakeRegistry, owner: Signer, stranger: Signer, tmp_path: Path
) -> None:
    made = described(registry, push(registry, tmp_path))
    signed(registry, owner, made.model_copy(update={"documents": ()}), tmp_path)
    wanted = owner.wants(made.reference, provenance=True)
    attach(registry, made, signing.BUNDLE, signing.bundle(stranger.key, signing.statement(digest(made), SLSA, {})))
    failed = refusal(wanted, registry, tmp_path)
    assert failed.reason is Reason.PROVENANCE_MISSING, "anybody who may push can attach what is not signed"
    assert owner.fingerprint in failed.message
    signed(registry, owner, made, tmp_path)
    assert trust.verified(wanted, registry.client()).uri == f"oci://{made.reference}"


# --- signing


def test_every_document_is_signed_as_a_statement_about_the_artefact(
    registry: FakeRegistry, owner: Signer, tmp_path: Path
) -> None:
    made = described(registry, push(registry, tmp_path))
    signed(registry, owner, made, tmp_path)
    client, found = registry.client(), {}
    for manifest in client.about(made.reference):
        if manifest["artifactType"] == signing.BUNDLE:
            content = client.document(made.reference, manifest["layers"][0])
            predicate, about = signing.opened(owner.key.public_key(), content)
            assert about == {digest(made)}
            assert manifest["annotations"] == signing.annotations(predicate)
            found[predicate] = json.loads(base64.b64decode(json.loads(content)["dsseEnvelope"]["payload"]))["predicate"]
    assert found == {
        trust.SIGNED: {},
        SLSA: {"buildDefinition": {}},
        "https://cyclonedx.org/bom": {"bomFormat": "CycloneDX"},
        "https://slmops.dev/evaluation/v1": {"models": {}},
    }


def test_what_somebody_else_has_attached_is_not_signed(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    made = described(registry, push(registry, tmp_path))
    attach(registry, made, IN_TOTO, signing.statement(digest(made), SLSA, {"forged": True}))
    signed(registry, owner, made, tmp_path)
    client = registry.client()
    bundles = client.referrers(made.reference, signing.BUNDLE)
    assert len(bundles) == 4
    assert not any(b"forged" in base64.b64decode(json.loads(b)["dsseEnvelope"]["payload"]) for b in bundles)


@pytest.mark.parametrize("kind", [IN_TOTO, "application/vnd.other"])
def test_a_document_that_is_not_about_the_artefact_is_not_signed(
    registry: FakeRegistry, owner: Signer, tmp_path: Path, kind: str
) -> None:
    made, other = push(registry, tmp_path), push(registry, tmp_path, "other")
    for wrong in (
        attach(registry, other, kind, signing.statement(digest(other), SLSA, {})),
        attach(registry, made, kind, signing.statement(digest(other), SLSA, {})),
        attach(registry, made, kind, b"no JSON"),
    ):
        with pytest.raises(RunFailed) as failed:
            signed(registry, owner, made.model_copy(update={"documents": (wrong,)}), tmp_path)
        assert failed.value.reason is Reason.UNSAFE_SOURCE


@pytest.mark.parametrize("kind", [BOM, EVALUATION])
def test_a_document_of_something_else_is_not_signed(
    registry: FakeRegistry, owner: Signer, tmp_path: Path, kind: str
) -> None:
    made, other = push(registry, tmp_path), push(registry, tmp_path, "other")
    theirs = attach(registry, other, kind, b"{}")
    with pytest.raises(RunFailed) as failed:
        signed(registry, owner, made.model_copy(update={"documents": (theirs,)}), tmp_path)
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert registry.client().referrers(made.reference, signing.BUNDLE) == [], "nor is anything else, then"


def test_a_registry_asks_who_signs_and_who_looks(owner: Signer, tmp_path: Path) -> None:
    """Signatures are looked for with the credentials of the source, which many registries want for reading, too."""
    from slmops.contract import Credentials

    with FakeRegistry() as registry:
        made = push(registry, tmp_path)
        registry.users["ann"] = "secret"
        config = tmp_path / "config.json.auth"
        pair = base64.b64encode(b"ann:secret").decode()
        config.write_text(json.dumps({"auths": {registry.host: {"auth": pair}}}))
        credentials = Credentials(path=str(config))
        output = sink(registry).model_copy(update={"credentials": credentials})
        run = SignRun(run="x", artifacts={"model": made}, key=owner.files, output=output, registry=registry.settings)
        sign(run, Context(tmp_path))
        wanted = owner.wants(made.reference)
        assert refusal(wanted, registry, tmp_path).reason is Reason.SOURCE_UNAUTHORIZED
        trust.verified(wanted.model_copy(update={"credentials": credentials}), registry.client())


# --- looking before a rollout


def looked(registry: FakeRegistry, images: dict[str, Source], folder: Path) -> Report:
    run = VerifyRun(run="x-verify-1", images=images, registry=registry.settings)
    path = folder / "run.json"
    path.write_text(run.model_dump_json())
    return execute({VerifyRun: verify}, [str(path)], Context(folder))


def test_images_are_looked_at_and_none_is_pulled(registry: FakeRegistry, owner: Signer, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    signed(registry, owner, made, tmp_path)
    blobs = registry.count("GET .*/blobs/")
    report = looked(registry, {"farms": owner.wants(made.reference)}, tmp_path)
    assert (report.outcome, report.signer) == ("Succeeded", owner.fingerprint)
    assert report.inputs == {"farms": f"oci://{made.reference}"}
    assert report.verified == {"farms": owner.fingerprint}
    assert registry.count("GET .*/blobs/") - blobs == 1, "the signature"


def test_one_image_that_is_not_signed_stops_all(
    registry: FakeRegistry, owner: Signer, stranger: Signer, tmp_path: Path
) -> None:
    made, other = push(registry, tmp_path), push(registry, tmp_path, "other")
    signed(registry, owner, made, tmp_path)
    images = {"barns": owner.wants(other.reference), "farms": owner.wants(made.reference)}
    report = looked(registry, images, tmp_path)
    assert (report.outcome, report.reason) == ("Failed", Reason.SIGNATURE_MISSING)
    assert other.reference in report.message
    bare = {"farms": Source(uri=f"oci://{made.reference}")}
    assert looked(registry, bare, tmp_path).reason is Reason.INVALID_CONFIGURATION
    two = {"barns": stranger.wants(made.reference), "farms": owner.wants(made.reference)}
    assert looked(registry, two, tmp_path).reason is Reason.INVALID_CONFIGURATION
