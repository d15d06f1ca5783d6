"""Signatures as cosign makes and reads them, with a key and without a transparency log (without a key: ``keyless``).

Made are Sigstore bundles (``application/vnd.dev.sigstore.bundle.v0.3+json``), as cosign 3 does: an in-toto statement
about a digest in a DSSE envelope, attached to what it is about (cosign's BUNDLE_SPEC; DSSE's protocol 1.0). Whoever signs
something says so by a statement with cosign's own predicate; other predicates in the same form are attestations. Read are
these and the older form, too: a "simple signing" payload in a layer whose annotation holds the signature
(cosign's SIGNATURE_SPEC).

The same key and statement give the same bundle (deterministic ECDSA, RFC 6979), so that signing twice adds nothing.
"""

import base64
import binascii
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from slmkit.keys import PrivateKey, PublicKey, hint

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIMPLE_SIGNATURE = "dev.cosignproject.cosign/signature"
"""Annotation of a layer of the older form."""
STATEMENT = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
OLDER_STATEMENT_TYPE = "https://in-toto.io/Statement/v0.1"


class NotSignedError(ValueError):
    """What should be a signature is none, or is not by this key."""


def statement(digest: str, predicate_type: str, predicate: Any) -> bytes:
    """An in-toto statement (v1) about a digest, ``sha256:…``."""
    subject = {"digest": {"sha256": digest.removeprefix("sha256:")}}
    said = {"_type": STATEMENT_TYPE, "subject": [subject], "predicateType": predicate_type, "predicate": predicate}
    return json.dumps(said, separators=(",", ":"), sort_keys=True).encode()


def annotations(predicate_type: str) -> dict[str, str]:
    """By which readers choose among bundles without fetching them."""
    return {"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": predicate_type}


def bundle(key: PrivateKey, said: bytes) -> bytes:
    """A statement, signed."""
    scheme = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    signature = key.sign(encoded(STATEMENT, said), scheme)
    envelope = {"payload": _base64(said), "payloadType": STATEMENT, "signatures": [{"sig": _base64(signature)}]}
    material = {"publicKey": {"hint": hint(key.public_key())}}
    found = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
    return json.dumps(found, separators=(",", ":"), sort_keys=True).encode()


def opened(key: PublicKey, content: bytes) -> tuple[str, set[str]]:
    """What a bundle says: its statement's predicate type, and the digests that it is about. Raises NotSignedError unless
    it is signed with the key. What it says of certificates, logs and times is not asked for: the key alone counts."""
    try:
        envelope = json.loads(content)["dsseEnvelope"]
        said, kind = _bytes(envelope["payload"]), envelope["payloadType"]
        [signature] = envelope["signatures"]
        _check(key, _bytes(signature["sig"]), encoded(kind, said))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotSignedError(str(error)) from None
    return stated(kind, said)


def stated(kind: str, said: bytes) -> tuple[str, set[str]]:
    """What is said in an envelope whose signature is good: predicate type and digests. Raises NotSignedError where that is
    no statement."""
    try:
        read = json.loads(said)
        if kind != STATEMENT or read["_type"] not in (STATEMENT_TYPE, OLDER_STATEMENT_TYPE):
            raise NotSignedError("what is signed is no statement")
        return str(read["predicateType"]), {f"sha256:{subject['digest']['sha256']}" for subject in read["subject"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotSignedError(str(error)) from None


def opened_simple(key: PublicKey, content: bytes, signature: object) -> str:
    """The digest that a payload of the older form is about. Raises NotSignedError unless it is signed with the key."""
    try:
        _check(key, _bytes(signature), content)
        return str(json.loads(content)["critical"]["image"]["docker-manifest-digest"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotSignedError(str(error)) from None


def _check(key: PublicKey, signature: bytes, content: bytes) -> None:
    try:
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise NotSignedError("the signature is not by this key, or of something else") from None


def encoded(kind: str, said: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(said), said)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise NotSignedError("not base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise NotSignedError("not base64") from None
