"""Without a key: who signs has a certificate and an entry in a log, and nothing else is taken for them."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sigstore.errors import TUFError
from sigstore.models import ClientTrustConfig

from slm_bench.evidence import publish
from slm_bench.sign import sign
from slm_bench.verify import verify
from slmkit import identities, peers, roots, signing, trust
from slmkit.keyless import IdentitySigner
from slmkit.run import Context, RunFailed
from slmops import contract
from slmops.contract import (
    TUF,
    Artifact,
    EvidenceRun,
    Keyless,
    Reason,
    Report,
    Root,
    SignRun,
    Source,
    Verify,
    VerifyRun,
)
from tests.integration.images.test_trust import NAME, SLSA, attach, described, digest, push, refusal, sink
from tests.unit.images.fakeregistry import FakeRegistry, sha256
from tests.unit.images.fakesigstore import ISSUER, FakeSigstore, account
from tests.unit.images.signers import signer

MINE = f"{account()} ({ISSUER})"
Change = Callable[[Any], None]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[FakeSigstore]:
    with FakeSigstore(tmp_path / "instance") as found:
        yield found


@pytest.fixture(autouse=True)
def nobody_is_listed() -> Iterator[None]:
    yield
    peers.limit(None)


def plain(registry: FakeRegistry, *instances: FakeSigstore) -> contract.Registry:
    return contract.Registry(plain_http=(registry.host, *(each.host for each in instances)))


def signed(
    registry: FakeRegistry, instance: FakeSigstore, made: Artifact, folder: Path, keyless: Keyless | None = None
) -> Report:
    run = SignRun(run="x-sign-1", artifacts={"model": made}, keyless=keyless or instance.keyless(), output=sink(registry),
                  registry=plain(registry, instance))  # fmt: skip
    return sign(run, Context(folder))


def wants(address: str, identity: contract.Identity, provenance: bool = False) -> Source:
    return Source(uri=f"oci://{address}", verify=Verify(identity=identity, provenance=provenance))


def bundle(instance: FakeSigstore, said: bytes, keyless: Keyless | None = None) -> bytes:
    settings = contract.Registry(plain_http=(instance.host,))
    return IdentitySigner(keyless or instance.keyless(), settings, lambda _: None).bundle(said)


def changed(content: bytes, change: Change) -> bytes:
    said = json.loads(content)
    change(said)
    return json.dumps(said).encode()


# --- what is signed is let in


def test_what_an_identity_has_signed_is_fetched_by_its_digest(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path
) -> None:
    made = described(registry, push(registry, tmp_path))
    assert signed(registry, instance, made, tmp_path).signer == MINE
    source = wants(f"{registry.host}/{NAME}:v1", instance.identity(), provenance=True)
    found = trust.verified(source, registry.client())
    assert found.uri == f"oci://{made.reference}"
    assert trust.seen[found.uri] == MINE
    assert len(instance.entries) == 4, "the signature and three documents"
    assert len(instance.shown) == 1, "one certificate is enough for minutes"


def test_a_bundle_has_certificate_and_entry_in_place_of_a_key(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path
) -> None:
    made = push(registry, tmp_path)
    signed(registry, instance, made, tmp_path)
    (manifest,) = [m for m in registry.client().about(made.reference) if m["artifactType"] == signing.BUNDLE]
    assert manifest["annotations"] == signing.annotations(trust.SIGNED)
    content = json.loads(registry.client().document(made.reference, manifest["layers"][0]))
    assert content["mediaType"] == signing.BUNDLE
    material = content["verificationMaterial"]
    assert "publicKey" not in material
    assert material["certificate"]["rawBytes"]
    (entry,) = material["tlogEntries"]
    assert entry["inclusionPromise"]["signedEntryTimestamp"]
    assert entry["inclusionProof"]["checkpoint"]["envelope"]
    statement = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
    assert statement["subject"] == [{"digest": {"sha256": digest(made).removeprefix("sha256:")}, "name": ""}]
    assert statement["predicateType"] == trust.SIGNED


class Yesterday(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "Yesterday":
        return super().now(tz) - timedelta(days=1)


def test_a_certificate_that_has_expired_since_is_good_for_what_the_log_took_in_time(
    instance: FakeSigstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.certified_ago = instance.noted_ago = 24 * 3600
    with monkeypatch.context() as patch:
        patch.setattr("sigstore.sign.datetime", Yesterday)
        content = bundle(instance, signing.statement(sha256(b"x"), trust.SIGNED, {}))
    assert identities.opened(instance.identity(), content) == (trust.SIGNED, {sha256(b"x")})


def test_a_key_and_an_identity_may_both_sign(registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path) -> None:
    made, owner = push(registry, tmp_path), signer(tmp_path / "owner")
    said = signing.statement(digest(made), trust.SIGNED, {})
    attach(registry, made, signing.BUNDLE, signing.bundle(owner.key, said))
    owner.older(registry, NAME, digest(made))
    identity = instance.identity()
    failed = refusal(wants(made.reference, identity), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_INVALID
    assert f"is not signed by {MINE} (signatures by others: 2" in failed.message
    signed(registry, instance, made, tmp_path)
    for source in (owner.wants(made.reference), wants(made.reference, identity)):
        assert trust.verified(source, registry.client()).uri == f"oci://{made.reference}"


# --- what is not is refused


def test_nobody_has_signed_it(registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path) -> None:
    made = described(registry, push(registry, tmp_path))
    failed = refusal(wants(made.reference, instance.identity()), registry, tmp_path)
    assert (failed.reason, failed.message) == (Reason.SIGNATURE_MISSING, f"{made.reference} is not signed")


def test_another_identity_is_refused_and_both_are_named(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path
) -> None:
    made = push(registry, tmp_path)
    signed(registry, instance, made, tmp_path, instance.keyless("somebody"))
    failed = refusal(wants(made.reference, instance.identity()), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_INVALID
    assert f"is not signed by {MINE}" in failed.message
    assert f"found: {account('somebody')} ({ISSUER})" in failed.message


@pytest.mark.parametrize("identity", [account("defaul"), account("default") + "2", "https://kubernetes.io/*"])
def test_an_identity_is_asked_for_exactly(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path, identity: str
) -> None:
    made = push(registry, tmp_path)
    signed(registry, instance, made, tmp_path)
    wanted = instance.identity().model_copy(update={"identity": identity})
    assert refusal(wants(made.reference, wanted), registry, tmp_path).reason is Reason.SIGNATURE_INVALID


def test_another_issuer_is_refused_and_both_are_named(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path
) -> None:
    """The same name at another cluster is somebody else."""
    made = push(registry, tmp_path)
    instance.issuer = "https://elsewhere.example"
    signed(registry, instance, made, tmp_path)
    failed = refusal(wants(made.reference, instance.identity()), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_INVALID
    assert f"is not signed by {MINE}" in failed.message
    assert f"found: {account()} (https://elsewhere.example)" in failed.message


def test_a_replaced_layer_is_refused(registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    signed(registry, instance, made, tmp_path)
    push(registry, tmp_path, "replaced")  # under the same tag
    failed = refusal(wants(f"{registry.host}/{NAME}:v1", instance.identity()), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_MISSING


def test_a_signature_moved_to_something_else_is_refused(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path
) -> None:
    good, bad = push(registry, tmp_path), push(registry, tmp_path, "bad")
    attach(registry, bad, signing.BUNDLE, bundle(instance, signing.statement(digest(good), trust.SIGNED, {})))
    failed = refusal(wants(bad.reference, instance.identity()), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_INVALID
    assert "about something else: 1" in failed.message


def test_the_same_name_from_another_authority_is_refused(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path
) -> None:
    """Anybody can run a Fulcio of their own, and let it say anything."""
    made = push(registry, tmp_path)
    with FakeSigstore(tmp_path / "forger") as forger:
        signed(registry, forger, made, tmp_path)
    failed = refusal(wants(made.reference, instance.identity()), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_INVALID
    assert "signatures by others: 1" in failed.message
    assert "found:" not in failed.message, "whom a stranger's certificate names is not told as a fact"


def test_provenance_counts_once_the_identity_has_signed_it(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path
) -> None:
    made = described(registry, push(registry, tmp_path))
    signed(registry, instance, made.model_copy(update={"documents": ()}), tmp_path)
    theirs = bundle(instance, signing.statement(digest(made), SLSA, {}), instance.keyless("somebody"))
    attach(registry, made, signing.BUNDLE, theirs)
    wanted = wants(made.reference, instance.identity(), provenance=True)
    failed = refusal(wanted, registry, tmp_path)
    assert failed.reason is Reason.PROVENANCE_MISSING
    assert MINE in failed.message
    signed(registry, instance, made, tmp_path)
    assert trust.verified(wanted, registry.client()).uri == f"oci://{made.reference}"


def put(*place: str | int, value: Any) -> Change:
    def change(said: Any) -> None:
        for part in place[:-1]:
            said = said[part]
        said[place[-1]] = value

    return change


ENTRY = ("verificationMaterial", "tlogEntries", 0)
FORGED = base64.b64encode(b"forged").decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("verificationMaterial", "tlogEntries", value=[]), "expected exactly one log entry"),
        (put(*ENTRY, "inclusionProof", value=None), "failed to load bundle"),
        (put(*ENTRY, "inclusionPromise", value=None), "inclusion promise or signed timestamp"),
        (put(*ENTRY, "integratedTime", value="1"), "certificate chain"),
        (put(*ENTRY, "inclusionPromise", "signedEntryTimestamp", value=FORGED), "invalid inclusion promise"),
        (put(*ENTRY, "inclusionProof", "rootHash", value=FORGED), "invalid root hash"),
        (put(*ENTRY, "canonicalizedBody", value=FORGED), "invalid log entry"),
        (put("dsseEnvelope", "payload", value=FORGED), "invalid signature"),
        (put("dsseEnvelope", "signatures", value=[]), ""),
        (put("verificationMaterial", "certificate", "rawBytes", value=FORGED), ""),
        (put("verificationMaterial", value={"publicKey": {"hint": "x"}}), ""),
        (put("mediaType", value="text/plain"), "failed to load bundle"),
    ],
    ids=["no entry", "no proof", "no promise", "another time", "a forged promise", "another root", "another entry",
         "another payload", "no signature", "no certificate", "a key", "another form"],
)  # fmt: skip
def test_a_bundle_that_was_changed_is_refused(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path, change: Change, words: str
) -> None:
    made = push(registry, tmp_path)
    content = bundle(instance, signing.statement(digest(made), trust.SIGNED, {}))
    attach(registry, made, signing.BUNDLE, changed(content, change))
    failed = refusal(wants(made.reference, instance.identity()), registry, tmp_path)
    assert failed.reason is Reason.SIGNATURE_INVALID
    assert words in failed.message


def test_an_entry_of_another_signature_is_refused(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path
) -> None:
    """A log's entry that is good by itself does not stand for what it does not hold."""
    made = push(registry, tmp_path)
    contents = [bundle(instance, signing.statement(digest(made), kind, {})) for kind in (SLSA, trust.SIGNED)]
    entry = json.loads(contents[0])["verificationMaterial"]["tlogEntries"][0]
    attach(registry, made, signing.BUNDLE, changed(contents[1], put(*ENTRY, value=entry)))
    assert refusal(wants(made.reference, instance.identity()), registry, tmp_path).reason is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_bundle_is_no_signature(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path, content: bytes
) -> None:
    made = push(registry, tmp_path)
    attach(registry, made, signing.BUNDLE, content)
    assert refusal(wants(made.reference, instance.identity()), registry, tmp_path).reason is Reason.SIGNATURE_INVALID


def test_what_the_log_took_after_the_certificate_ran_out_is_refused_by_who_signs(instance: FakeSigstore) -> None:
    instance.noted_ago = -3600
    failed = cannot(instance)
    assert failed.reason is Reason.KEY_UNUSABLE
    assert "certificate chain" in failed.message


# --- signing that cannot be


def cannot(instance: FakeSigstore, keyless: Keyless | None = None) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        bundle(instance, signing.statement(sha256(b"x"), trust.SIGNED, {}), keyless)
    token = (instance.folder / "token").read_text() if (instance.folder / "token").exists() else "token"
    assert token == "token" or token not in failed.value.message
    return failed.value


@pytest.mark.parametrize(
    ("claims", "words"),
    [({"seconds": -60}, "Signature has expired"), ({"aud": ["https://kubernetes.default.svc"]}, "Audience")],
    ids=["expired", "for somebody else"],
)
def test_a_token_that_is_not_good_is_shown_to_nobody(
    instance: FakeSigstore, claims: dict[str, Any], words: str
) -> None:
    failed = cannot(instance, instance.keyless(**claims))
    assert failed.reason is Reason.IDENTITY_REFUSED
    assert words in failed.message
    assert instance.shown == []


def test_an_identity_that_fulcio_does_not_know_is_told_with_its_words(instance: FakeSigstore) -> None:
    instance.audience = "sigstore-lab"
    failed = cannot(instance)
    assert failed.reason is Reason.IDENTITY_REFUSED
    assert "Fulcio (127.0.0.1) answered 401 There was an error processing the identity token" in failed.message


def test_a_server_that_answers_with_the_token_is_not_repeated(instance: FakeSigstore) -> None:
    keyless = instance.keyless()
    instance.refusals["fulcio"] = [(403, {"message": f"no: {Path(keyless.token).read_text()}"})]
    assert cannot(instance, keyless).message == "Fulcio (127.0.0.1) answered 403 no: …"


@pytest.mark.parametrize("content", ["", "two words", "no token", None])
def test_what_is_no_token_is_refused(instance: FakeSigstore, content: str | None) -> None:
    keyless = instance.keyless()
    if content is None:
        Path(keyless.token).unlink()
    else:
        Path(keyless.token).write_text(content)
    with pytest.raises(RunFailed) as failed:
        bundle(instance, signing.statement(sha256(b"x"), trust.SIGNED, {}), keyless)
    assert failed.value.reason is Reason.IDENTITY_REFUSED
    assert instance.shown == []


@pytest.mark.parametrize(("server", "name"), [("fulcio", "Fulcio"), ("rekor", "Rekor")])
def test_a_server_that_fails_is_asked_again_and_not_for_ever(instance: FakeSigstore, server: str, name: str) -> None:
    instance.refusals[server] = [(503, {})] * 2
    assert bundle(instance, signing.statement(sha256(b"x"), trust.SIGNED, {}))
    instance.refusals[server] = [(503, {})] * 3
    failed = cannot(instance)
    assert (failed.reason, failed.message) == (
        Reason.SOURCE_UNREACHABLE,
        f"{name} (127.0.0.1): answered 503, 3 times",
    )


@pytest.mark.parametrize("server", ["fulcio", "rekor"])
@pytest.mark.parametrize("answer", [(200, {}), (200, {"signedCertificateEmbeddedSct": {"chain": {"certificates": ["x"]}}}),
                                    (302, {})])  # fmt: skip
def test_an_answer_that_is_none_ends_the_run_with_a_reason(
    instance: FakeSigstore, server: str, answer: tuple[int, dict[str, Any]]
) -> None:
    instance.refusals[server] = [answer]
    assert cannot(instance).reason in (Reason.SOURCE_UNREACHABLE, Reason.IDENTITY_REFUSED)


def test_a_server_that_is_not_there_is_told_by_its_name(instance: FakeSigstore) -> None:
    gone = contract.Server(url="https://127.0.0.1:1")
    settings = contract.Registry(plain_http=("127.0.0.1:1",))
    keyless = instance.keyless().model_copy(update={"fulcio": gone})
    with pytest.raises(RunFailed) as failed:
        IdentitySigner(keyless, settings, lambda _: None).bundle(signing.statement(sha256(b"x"), trust.SIGNED, {}))
    assert failed.value.reason is Reason.SOURCE_UNREACHABLE
    assert "Fulcio (127.0.0.1): ConnectError" in failed.value.message


def test_a_log_that_the_root_does_not_know_is_told_before_anything_is_published(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path
) -> None:
    made = push(registry, tmp_path)
    with FakeSigstore(tmp_path / "other") as other:
        keyless = instance.keyless().model_copy(update={"rekor": contract.Server(url=f"https://{other.host}")})
        run = SignRun(run="s", artifacts={"model": made}, keyless=keyless, output=sink(registry),
                      registry=plain(registry, instance, other))  # fmt: skip
        with pytest.raises(RunFailed) as failed:
            sign(run, Context(tmp_path))
    assert failed.value.reason is Reason.KEY_UNUSABLE
    assert "trustedRoot does not know" in failed.value.message
    assert list(registry.client().about(made.reference)) == []


def test_a_log_that_lies_is_found_out(instance: FakeSigstore) -> None:
    instance.entry = put("verification", "signedEntryTimestamp", value=FORGED)
    assert cannot(instance).reason is Reason.KEY_UNUSABLE


def test_nobody_is_asked_who_is_not_listed(instance: FakeSigstore) -> None:
    keyless = instance.keyless()
    peers.limit([contract.Peer(host="registry.example", port=443)])
    assert cannot(instance, keyless).reason is Reason.EGRESS_REFUSED
    assert instance.shown == []
    host, _, port = instance.host.partition(":")
    peers.limit([contract.Peer(host=host, port=int(port))])
    assert bundle(instance, signing.statement(sha256(b"x"), trust.SIGNED, {}), keyless)


def test_without_a_key_and_without_an_identity_there_is_nothing_to_sign_with(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    run = SignRun(run="s", artifacts={}, output=sink(registry), registry=registry.settings)
    with pytest.raises(RunFailed) as failed:
        sign(run, Context(tmp_path))
    assert failed.value.reason is Reason.INVALID_CONFIGURATION


# --- whom to trust


@pytest.mark.parametrize("missing", ["tlogs", "certificateAuthorities", "mediaType"])
def test_a_root_with_nothing_to_trust_is_refused(
    registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path, missing: str
) -> None:
    made = push(registry, tmp_path)
    root = instance.root(**{missing: "text/plain" if missing == "mediaType" else []})
    failed = refusal(wants(made.reference, instance.identity(root=root)), registry, tmp_path)
    assert failed.reason is Reason.KEY_UNUSABLE
    assert "trusted_root.json is no trusted root" in failed.message


@pytest.mark.parametrize(
    ("content", "words"), [(None, "there is no key root.json"), ("{", "key root.json is no trusted root")]
)
def test_what_is_no_root_is_refused_by_its_name(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "root.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunFailed, match=words) as failed:
        roots.verifier(Root(path=str(path)))
    assert failed.value.reason is Reason.KEY_UNUSABLE
    assert str(tmp_path) not in failed.value.message


def test_of_the_public_instance_its_repository_says_whom_to_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def away(url: str) -> None:
        asked.append(url)
        raise TUFError("Failed to refresh TUF metadata")

    monkeypatch.setattr(ClientTrustConfig, "from_tuf", away)
    with pytest.raises(RunFailed, match="Failed to refresh") as failed:
        roots.trusted_root(Root(url=TUF))
    assert failed.value.reason is Reason.SOURCE_UNREACHABLE
    assert asked == [TUF]
    peers.limit([])
    with pytest.raises(RunFailed, match=r"tuf-repo-cdn\.sigstore\.dev:443 is not listed"):
        roots.trusted_root(Root(url=TUF))
    assert asked == [TUF]


# --- rollouts


def test_images_are_looked_at_by_identity(registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    identity = instance.identity()
    images = {"farms": wants(made.reference, identity)}
    run = VerifyRun(run="v", images=images, registry=registry.settings)
    with pytest.raises(RunFailed) as failed:
        verify(run, Context(tmp_path))
    assert failed.value.reason is Reason.SIGNATURE_MISSING
    signed(registry, instance, made, tmp_path)
    context = Context(tmp_path)
    assert verify(run, context).signer == MINE
    assert context.verified == {"farms": MINE}


def test_evidence_is_signed_by_an_identity(registry: FakeRegistry, instance: FakeSigstore, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    run = EvidenceRun(run="e", images={"farms": made.reference}, document={"outcome": "Promoted"},
                      keyless=instance.keyless(), registry=plain(registry, instance))  # fmt: skip
    assert publish(run, Context(tmp_path)).signer == MINE
    assert len(registry.client().referrers(made.reference, signing.BUNDLE)) == 1


def test_the_library_is_loaded_by_nobody_who_does_without() -> None:
    program = "import slm_bench.sign, slm_bench.evidence, slm_bench.verify, slmkit.openers, slmkit.trust, sys; " \
              "sys.exit('sigstore' in sys.modules)"  # fmt: skip
    assert (
        subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode
        == 0
    )
