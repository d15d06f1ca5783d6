"""s3://: the signature of the protocol's documentation, and what a server may not do to us."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from slmkit.run import Context, RunFailed
from slmkit.sources import fetch, s3
from slmkit.sources.s3 import Account, signed
from slmops import contract
from slmops.contract import Credentials, Reason, Source
from tests.unit.images.s3store import Store

EXAMPLE = Account("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
WHEN = datetime(2013, 5, 24, tzinfo=UTC)
CANARY = "canary-s3cret"


@pytest.mark.parametrize(
    ("url", "signature"),
    [
        ("https://examplebucket.s3.amazonaws.com/?lifecycle=",
         "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J",
         "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)  # fmt: skip
def test_requests_are_signed_as_in_the_documentations_examples(url: str, signature: str) -> None:
    """Amazon S3 API reference, "Signature Calculations: Examples"."""
    headers = signed(EXAMPLE, "GET", httpx.URL(url), WHEN)
    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature={signature}"
    )


def test_nobody_in_particular_signs_nothing() -> None:
    assert "authorization" not in signed(Account(), "GET", httpx.URL("https://x/"), WHEN)


def test_names_are_spelled_as_they_are_signed() -> None:
    url = s3.address("https://h:9000/", "b", "a b/ü+~(1)", {"prefix": "a b/", "continuation-token": "x+/="})
    assert url.raw_path == b"/b/a%20b/%C3%BC%2B~%281%29?continuation-token=x%2B%2F%3D&prefix=a%20b%2F"


@pytest.fixture
def store() -> Iterator[Store]:
    objects = {"data/train.jsonl": b"one\n", "data/deep/x y.jsonl": b"two\n", "data2/z": b"three", "data/": b""}
    with Store(objects, page=1) as found:
        yield found


def get(store: Store, into: Path, path: str = "bucket/data", **source: Any) -> str:
    from slmkit.registry import Registry

    registry = Registry(contract.Registry(plain_http=(store.host,)))
    return fetch(Source(uri=f"s3://{path}", endpoint=f"http://{store.host}", **source), into, registry, "dataset")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def failure(store: Store, into: Path, path: str = "bucket/data", **source: Any) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        get(store, into, path, **source)
    return failed.value


def keys(folder: Path, **content: str) -> Credentials:
    folder.mkdir(exist_ok=True)
    for name, text in content.items():
        (folder / name).write_text(text)
    return Credentials(path=str(folder))


@pytest.mark.parametrize("path", ["bucket/data", "bucket/data/"])
def test_a_prefix_is_a_folder_however_many_pages_its_list_has(store: Store, tmp_path: Path, path: str) -> None:
    address = get(store, tmp_path, path)
    assert files(tmp_path) == {"train.jsonl": b"one\n", "deep/x y.jsonl": b"two\n"}
    lines = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in sorted(files(tmp_path).items()))
    assert address == f"s3://{path}#sha256={hashlib.sha256(lines.encode()).hexdigest()}"


def test_a_whole_key_is_one_file(store: Store, tmp_path: Path) -> None:
    get(store, tmp_path, "bucket/data/train.jsonl")
    assert files(tmp_path) == {"train.jsonl": b"one\n"}


def test_the_address_of_one_run_gives_the_same_or_nothing_to_the_next(store: Store, tmp_path: Path) -> None:
    address = get(store, tmp_path / "a").removeprefix("s3://")
    assert get(store, tmp_path / "b", address).removeprefix("s3://") == address
    store.objects["data/train.jsonl"] = b"changed\n"
    failed = failure(store, tmp_path / "c", address)
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert "digest over the files" in failed.message
    assert list((tmp_path / "c").iterdir()) == []


def test_the_standard_keys_of_a_secret_sign(store: Store, tmp_path: Path) -> None:
    store.account = Account("ann", "secret", "session", "eu-north-1")
    known = keys(tmp_path / "k", AWS_ACCESS_KEY_ID="ann\n", AWS_SECRET_ACCESS_KEY="secret\n",
                 AWS_SESSION_TOKEN="session", AWS_REGION="eu-north-1")  # fmt: skip
    get(store, tmp_path / "out", credentials=known)
    assert "train.jsonl" in files(tmp_path / "out")
    store.account = Account("ann", "another")
    assert failure(store, tmp_path / "b", credentials=known).reason is Reason.SOURCE_UNAUTHORIZED


@pytest.mark.parametrize(
    "content",
    [{}, {"AWS_ACCESS_KEY_ID": "ann"}, {"AWS_SECRET_ACCESS_KEY": CANARY},
     {"AWS_ACCESS_KEY_ID": "ann", "AWS_SECRET_ACCESS_KEY": f"{CANARY}\nx"},
     {"AWS_ACCESS_KEY_ID": "ann", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_REGION": "a/b"}],
    ids=["nothing", "no secret", "no name", "two lines", "a region that is none"],
)  # fmt: skip
def test_keys_that_cannot_sign_are_never_quoted(store: Store, tmp_path: Path, content: dict[str, str]) -> None:
    failed = failure(store, tmp_path / "out", credentials=keys(tmp_path / "k", **content))
    assert failed.reason is Reason.SOURCE_UNAUTHORIZED
    assert CANARY not in failed.message
    assert store.requests == []


def test_bytes_are_counted_as_they_come(store: Store, tmp_path: Path) -> None:
    from slmkit.registry import Registry

    context = Context()
    context.stage("Fetching")
    registry = Registry(contract.Registry(plain_http=(store.host,)), meter=context)
    fetch(Source(uri="s3://bucket/data", endpoint=f"http://{store.host}"), tmp_path, registry, "dataset")
    assert context.progress.step == context.progress.of == len(b"one\ntwo\n")


def test_the_right_region_is_named(store: Store, tmp_path: Path) -> None:
    store.status, store.headers = 301, {"x-amz-bucket-region": "eu-north-1"}
    failed = failure(store, tmp_path)
    assert failed.reason is Reason.SOURCE_UNAUTHORIZED
    assert "eu-north-1" in failed.message
    assert "AWS_REGION" in failed.message


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, Reason.SOURCE_NOT_FOUND), (403, Reason.SOURCE_UNAUTHORIZED), (500, Reason.SOURCE_UNREACHABLE),
     (302, Reason.SOURCE_UNREACHABLE)],
)  # fmt: skip
def test_a_refusal_says_how(store: Store, tmp_path: Path, status: int, reason: Reason) -> None:
    store.status = status
    assert failure(store, tmp_path).reason is reason


def test_nothing_below_a_prefix_is_not_found(store: Store, tmp_path: Path) -> None:
    assert failure(store, tmp_path, "bucket/nowhere").reason is Reason.SOURCE_NOT_FOUND


@pytest.mark.parametrize(
    "key", ["data/../../x", "data//etc/passwd", "data/a/../b", "data/a\\b", "data/a\nb", "data/" + "x" * 300,
            "data/" + "d/" * 20 + "x", "data/train.jsonl/x", "data/./x"],
)  # fmt: skip
def test_no_object_leaves_the_folder(store: Store, tmp_path: Path, key: str) -> None:
    store.objects[key] = b"x"
    assert failure(store, tmp_path / "out").reason is Reason.UNSAFE_SOURCE
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "body",
    [b'<!DOCTYPE a [<!ENTITY b "x">]><ListBucketResult>&b;</ListBucketResult>', b"<a", b"\x00", b"<a>" + b" " * (4 << 20)],
    ids=["a document type", "half", "nothing", "beyond all measure"],
)  # fmt: skip
def test_a_list_that_is_none_is_refused(store: Store, tmp_path: Path, body: bytes) -> None:
    store.list_body = body
    assert failure(store, tmp_path).reason is Reason.UNSAFE_SOURCE


def test_a_list_without_end_ends(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "OBJECTS", 1)
    failed = failure(store, tmp_path)
    assert failed.reason is Reason.UNSAFE_SOURCE
    assert "name a longer prefix" in failed.message


def test_a_server_inside_or_without_tls_has_to_be_listed(store: Store, tmp_path: Path) -> None:
    from slmkit.registry import Registry

    for endpoint, words in ((f"http://{store.host}", "internal address"), ("http://93.184.215.14", "https://")):
        with pytest.raises(RunFailed, match=words) as failed:
            fetch(Source(uri="s3://bucket/x", endpoint=endpoint), tmp_path, Registry(contract.Registry()), "dataset")
        assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert store.requests == []
