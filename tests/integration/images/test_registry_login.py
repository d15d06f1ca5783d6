"""Logins: the password goes to the registry that it is for, in a header, and nowhere else."""

import base64
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from slmkit.access import bearer, parse
from slmkit.run import RunFailed
from slmkit.wire import ATTEMPTS
from slmops.contract import Artifact, Credentials, Reason, Sink, Source
from tests.unit.images.fakeregistry import Answer, FakeRegistry

CANARY = "canary-5up3r-s3cret"
PAIR = base64.b64encode(f"ann:{CANARY}".encode()).decode()


@pytest.fixture
def guarded(registry: FakeRegistry) -> FakeRegistry:
    """A registry that asks for a login."""
    registry.users["ann"] = CANARY
    registry.artifact("slm/data", {"x": b"content"})
    return registry


def secret(tmp_path: Path, content: object) -> Credentials:
    path = tmp_path / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Credentials(path=str(path))


def pull(registry: FakeRegistry, tmp_path: Path, credentials: Credentials | None) -> str:
    return registry.client().pull(
        Source(uri=f"oci://{registry.host}/slm/data", credentials=credentials), tmp_path / "o"
    )


def push(registry: FakeRegistry, tmp_path: Path, credentials: Credentials | None) -> Artifact:
    (tmp_path / "new").write_bytes(b"new content")
    sink = Sink(repository=f"{registry.host}/slm/data", credentials=credentials)
    return registry.client().push_artifact(sink, {"new": tmp_path / "new"}, "application/vnd.x", {})


def ways_to_write(host: str) -> dict[str, Mapping[str, object]]:
    return {
        "auth": {host: {"auth": PAIR}},
        "auth that was wrapped": {host: {"auth": f"{PAIR[:10]}\n{PAIR[10:]}\n"}},
        "name and password": {host: {"username": "ann", "password": CANARY}},
        "an address": {f"https://{host}": {"auth": PAIR}},
        "among others": {"other.example": {"auth": "eDp5"}, host: {"auth": PAIR}},
    }


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
@pytest.mark.parametrize("written", ways_to_write("host"))
def test_a_docker_configuration_logs_in(guarded: FakeRegistry, tmp_path: Path, scheme: str, written: str) -> None:
    guarded.scheme = scheme
    credentials = secret(tmp_path, {"auths": ways_to_write(guarded.host)[written]})
    pull(guarded, tmp_path, credentials)
    assert (tmp_path / "o" / "x").read_bytes() == b"content"
    made = push(guarded, tmp_path, credentials)
    assert ("slm/data", made.reference.partition("@")[2]) in guarded.manifests


def test_who_only_reads_asks_for_no_more(guarded: FakeRegistry, tmp_path: Path) -> None:
    pull(guarded, tmp_path, secret(tmp_path, {"auths": {guarded.host: {"auth": PAIR}}}))
    assert list(guarded.tokens.values()) == ["repository:slm/data:pull"]


def test_one_login_is_enough_for_a_whole_push(guarded: FakeRegistry, tmp_path: Path) -> None:
    push(guarded, tmp_path, secret(tmp_path, {"auths": {guarded.host: {"auth": PAIR}}}))
    assert guarded.count("GET /token") == 1


@pytest.mark.parametrize("request_", ["POST .*/blobs/uploads/", "PUT .*/manifests/", "HEAD .*/blobs/"])
def test_a_token_that_runs_out_on_the_way_is_renewed(guarded: FakeRegistry, tmp_path: Path, request_: str) -> None:
    challenge = f'Bearer realm="http://{guarded.host}/token",service="fake"'
    guarded.answer(request_, Answer(401, headers={"WWW-Authenticate": challenge}))
    made = push(guarded, tmp_path, secret(tmp_path, {"auths": {guarded.host: {"auth": PAIR}}}))
    assert ("slm/data", made.reference.partition("@")[2]) in guarded.manifests
    assert guarded.count("GET /token") >= 1


WRONG = base64.b64encode(f"ann:{CANARY}-wrong".encode()).decode()
USELESS: dict[str, object] = {
    "no entry": {"auths": {"other.example": {"auth": PAIR}}},
    "an empty entry": {"auths": {"HOST": {}}},
    "another password": {"auths": {"HOST": {"auth": WRONG}}},
    "not JSON": f"not JSON {CANARY}",
    "no auths": {"ann": CANARY},
    "auths of another shape": {"auths": [CANARY]},
    "an entry of another shape": {"auths": {"HOST": CANARY}},
    "no base64": {"auths": {"HOST": {"auth": f"{CANARY}="}}},
    "a number": {"auths": {"HOST": {"auth": 5}}},
    "nested": '{"auths": ' + "[" * 99_999,
}


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
@pytest.mark.parametrize("useless", USELESS)
def test_a_secret_that_does_not_help_is_never_quoted(
    guarded: FakeRegistry, tmp_path: Path, scheme: str, useless: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guarded.scheme = scheme
    content = USELESS[useless]
    written = content if isinstance(content, str) else json.dumps(content)
    credentials = secret(tmp_path, written.replace("HOST", guarded.host))
    for act, reason in ((pull, Reason.SOURCE_UNAUTHORIZED), (push, Reason.REGISTRY_REFUSED)):
        with pytest.raises(RunFailed) as failed:
            act(guarded, tmp_path, credentials)
        assert failed.value.reason is reason
        assert CANARY not in failed.value.message
        assert PAIR not in failed.value.message
    assert CANARY not in caplog.text
    assert PAIR not in caplog.text
    assert not (tmp_path / "o" / "x").exists()


def test_a_secret_that_is_not_there_says_so(guarded: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed:
        pull(guarded, tmp_path, Credentials(path=str(tmp_path / "missing")))
    assert failed.value.reason is Reason.SOURCE_UNAUTHORIZED
    assert ".dockerconfigjson" in failed.value.message


def test_whoever_has_no_secret_is_told_what_is_missing(guarded: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed:
        pull(guarded, tmp_path, None)
    assert failed.value.reason is Reason.SOURCE_UNAUTHORIZED
    assert "401" in failed.value.message


def test_a_public_registry_hands_out_tokens_without_a_login(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.artifact("slm/data", {"x": b"content"})
    challenge = f'Bearer realm="http://{registry.host}/token",service="fake",scope="ignored"'
    registry.answer("GET .*/manifests/", Answer(401, headers={"WWW-Authenticate": challenge}))
    pull(registry, tmp_path, None)
    assert ("GET /token", "") in registry.shown
    assert registry.shown[-1][1].startswith("Bearer token-")


@pytest.mark.parametrize("trouble", [Answer(503), Answer(429), Answer(status=0)])
def test_trouble_of_the_token_server_passes(guarded: FakeRegistry, tmp_path: Path, trouble: Answer) -> None:
    guarded.answer("GET /token", trouble, trouble)
    pull(guarded, tmp_path, secret(tmp_path, {"auths": {guarded.host: {"auth": PAIR}}}))
    assert (tmp_path / "o" / "x").exists()


def test_a_token_server_that_stays_away_is_no_wrong_password(guarded: FakeRegistry, tmp_path: Path) -> None:
    guarded.always("GET /token", Answer(503))
    with pytest.raises(RunFailed) as failed:
        pull(guarded, tmp_path, secret(tmp_path, {"auths": {guarded.host: {"auth": PAIR}}}))
    assert failed.value.reason is Reason.SOURCE_UNREACHABLE
    assert guarded.count("GET /token") == ATTEMPTS


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"{}", b'{"token": 5}', b'{"token": ""}', b'{"token": "a\\nb"}', '{"token": "ü"}'.encode(),
     b"[" * 99_999],
)  # fmt: skip
def test_a_token_that_is_none_is_a_failed_login(guarded: FakeRegistry, tmp_path: Path, body: bytes) -> None:
    guarded.always("GET /token", Answer(body=body))
    with pytest.raises(RunFailed) as failed:
        pull(guarded, tmp_path, secret(tmp_path, {"auths": {guarded.host: {"auth": PAIR}}}))
    assert failed.value.reason is Reason.SOURCE_UNAUTHORIZED


@pytest.mark.parametrize("challenge", ["", "Bearer", 'Bearer service="x"', 'Bearer realm="http://h:port/"', "Digest x"])
def test_a_challenge_that_nobody_can_answer_is_a_refusal(
    registry: FakeRegistry, tmp_path: Path, challenge: str
) -> None:
    registry.always("GET .*/manifests/", Answer(401, headers={"WWW-Authenticate": challenge}))
    with pytest.raises(RunFailed) as failed:
        pull(registry, tmp_path, None)
    assert failed.value.reason is Reason.SOURCE_UNAUTHORIZED


def test_an_upload_elsewhere_is_shown_no_login(guarded: FakeRegistry, tmp_path: Path) -> None:
    with FakeRegistry() as store:
        guarded.upload_host, store.uploads = store.host, guarded.uploads
        guarded.also.append(store.host)
        with pytest.raises(RunFailed):  # the blobs are elsewhere, so the manifest is refused
            push(guarded, tmp_path, secret(tmp_path, {"auths": {guarded.host: {"auth": PAIR}}}))
        assert store.count("PUT .*/blobs/uploads/") == 1
        assert {shown for _, shown in store.shown} == {""}


@pytest.mark.parametrize("content", [f"{CANARY}\nsecond", f"{CANARY} x", f"{CANARY}\x00", f"{CANARY}ü", "", " \n"])
def test_a_token_file_of_more_than_a_token_is_never_quoted(tmp_path: Path, content: str) -> None:
    with pytest.raises(RunFailed) as failed:
        bearer(secret(tmp_path, content))
    assert failed.value.reason is Reason.SOURCE_UNAUTHORIZED
    assert CANARY not in failed.value.message


def test_a_token_file_may_end_in_a_new_line(tmp_path: Path) -> None:
    assert bearer(secret(tmp_path, f"{CANARY}\n")) == {"Authorization": f"Bearer {CANARY}"}
    assert bearer(None) == {}


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("r.example/a", ("r.example", "a", None, None)),
        ("r.example:5000/a/b-c/d__e:v1.2", ("r.example:5000", "a/b-c/d__e", "v1.2", None)),
        ("[::1]:5000/a", ("[::1]:5000", "a", None, None)),
        (f"h/a:t@sha256:{'0' * 64}", ("h", "a", "t", f"sha256:{'0' * 64}")),
    ],
)
def test_a_reference_in_parts(reference: str, parts: tuple[str | None, ...]) -> None:
    found = parse(reference)
    assert tuple(found.get(part) for part in ("host", "name", "tag", "digest")) == parts


@pytest.mark.parametrize(
    "reference",
    [
        "", "a", "/a", "h/", "h/a:", "h/a@", f"h/a@sha256:{'0' * 63}", f"h/a@sha256:{'0' * 65}", f"h/a@sha256:{'G' * 64}",
        f"h/a@md5:{'0' * 32}", "user:pass@h/a", "user@h/a", "h/a:t\n", "h\n/a", "h/a\n", "h/a b", "h/../a", "h/a/..",
        "h/a?x", "h/a#x", "h/a%2e", "h/A", "h//a", "h/a/", "h/a:t/b", "h/\u0430", "h:port/a", "h/a\\b", "http://h/a",
        "h/a:-t", f"h/a:{'t' * 129}", "h/a;b", "\uff48/a",
    ],
)  # fmt: skip
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(RunFailed) as failed:
        parse(reference)
    assert failed.value.reason is Reason.INVALID_CONFIGURATION
