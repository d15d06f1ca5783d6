"""Keys: cosign's own form and PKCS #8 are read, everything else is refused by name, and none of it is ever quoted."""

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from slmkit import keys
from slmkit.run import RunFailed
from slmops.contract import Reason, SigningKey
from tests.unit.images.signers import PASSWORD, boxed, pkcs8, public_pem, signer

KEY = ec.generate_private_key(ec.SECP256R1())
Content = bytes | Callable[[], bytes]
"""What takes its time is made where it is needed."""


@cache
def box() -> bytes:
    return boxed(KEY)


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def made(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content()


def read(folder: Path, content: Content | None, password: bytes | None = PASSWORD) -> Any:
    key = None if content is None else made(content)
    for name, value in (("cosign.key", key), ("cosign.password", password)):
        if value is not None:
            (folder / name).write_bytes(value)
    return keys.private_key(SigningKey(path=str(folder / "cosign.key"), password=str(folder / "cosign.password")))


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (box, PASSWORD),
        (lambda: boxed(KEY, cost=2**16), PASSWORD),
        (lambda: boxed(KEY, label="COSIGN"), PASSWORD),
        (box, PASSWORD + b"\n"),
        (lambda: boxed(KEY, b""), None),
        (lambda: boxed(KEY, b""), b""),
        (lambda: pkcs8(KEY), None),
        (lambda: pkcs8(KEY), PASSWORD),
        (lambda: pkcs8(KEY, PASSWORD), PASSWORD),
    ],
    ids=["cosign", "cosign's new cost", "an older label", "an editor's newline", "no password", "an empty one", "plain",
         "plain with a password", "encrypted PKCS 8"],
)  # fmt: skip
def test_a_private_key_is_read(tmp_path: Path, content: Content, password: bytes | None) -> None:
    assert read(tmp_path, content, password).private_numbers() == KEY.private_numbers()


BAD_KDF = {"name": "scrypt", "params": {"N": 2**24, "r": 8, "p": 1}, "salt": ""}


@pytest.mark.parametrize(
    ("content", "password", "words"),
    [
        (None, PASSWORD, "there is no key cosign.key"),
        (b"", PASSWORD, "no private key in PEM"),
        (b"canary", PASSWORD, "no private key in PEM"),
        (box, b"canary", "the password in the Secret is not the one"),
        (box, None, "the password in the Secret is not the one"),
        (lambda: pkcs8(KEY, PASSWORD), b"canary", "the password in the Secret is not the one"),
        (lambda: boxed(KEY, kdf=BAD_KDF), PASSWORD, "no private key in PEM"),
        (lambda: boxed(KEY, cost=2**14), PASSWORD, "no private key in PEM"),
        (lambda: boxed(KEY, cipher={"name": "none", "nonce": ""}), PASSWORD, "no private key in PEM"),
        (lambda: boxed(KEY, ciphertext="***"), PASSWORD, "no private key in PEM"),
        (lambda: public_pem(KEY), PASSWORD, "no private key in PEM"),
        (lambda: pkcs8(ec.generate_private_key(ec.SECP384R1())), PASSWORD, "ECDSA on P-256"),
        (lambda: pkcs8(rsa_key()), PASSWORD, "ECDSA on P-256"),
        (lambda: boxed(ed25519.Ed25519PrivateKey.generate()), PASSWORD, "ECDSA on P-256"),
    ],
    ids=["none", "empty", "text", "wrong password", "no password", "wrong password of PKCS 8", "a cost that nobody asks",
         "a cost too low", "no cipher", "no base64", "a public key", "another curve", "RSA", "Ed25519"],
)  # fmt: skip
def test_what_cannot_be_signed_with_is_refused_and_not_quoted(
    tmp_path: Path, content: Content | None, password: bytes | None, words: str
) -> None:
    with pytest.raises(RunFailed) as failed:
        read(tmp_path, content, password)
    assert failed.value.reason is Reason.KEY_UNUSABLE
    assert words in failed.value.message
    assert "canary" not in failed.value.message
    assert str(tmp_path) not in failed.value.message


@pytest.mark.parametrize("content", [b"", b"canary", box, lambda: public_pem(rsa_key())],
                         ids=["empty", "text", "a private key", "RSA"])  # fmt: skip
def test_what_cannot_be_verified_with_is_refused(tmp_path: Path, content: Content) -> None:
    path = tmp_path / "cosign.pub"
    path.write_bytes(made(content))
    with pytest.raises(RunFailed) as failed:
        keys.public_key(path)
    assert failed.value.reason is Reason.KEY_UNUSABLE
    assert "cosign.pub" in failed.value.message


def test_the_fingerprint_is_what_openssl_gives(tmp_path: Path) -> None:
    pair = signer(tmp_path)
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", pair.public, "-outform", "DER"], check=True, capture_output=True
    )
    told = subprocess.run(["sha256sum"], input=der.stdout, check=True, capture_output=True).stdout.split()[0].decode()
    assert pair.fingerprint == f"sha256:{told}"
    assert keys.fingerprint(keys.public_key(pair.public)) == pair.fingerprint
