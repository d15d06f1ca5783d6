"""Keys as cosign keeps them: ECDSA on P-256, the public one in PEM, the private one encrypted with a password.

``cosign generate-key-pair`` writes the private key as PKCS #8 in a NaCl secret box, whose key scrypt makes from the
password; the box and its parameters are JSON inside a PEM block (``encrypted`` of go-securesystemslib). A private key in
plain PKCS #8, or encrypted as that format has it, is taken too. Nothing that is read here is ever quoted.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from slmkit.run import RunFailed
from slmops.contract import Reason, SigningKey

BOXED = re.compile(rb"-----BEGIN ENCRYPTED (SIGSTORE|COSIGN) PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+?)-----END ")
COSTS = {2**15, 2**16, 2**17}
"""scrypt's N that cosign has used, with r = 8 and p = 1. Others are refused: they would only cost time and memory."""
MEMORY = 160 << 20
"""Bytes that scrypt may use; the largest N needs 128 MiB."""
LARGEST = 64 << 10
"""Bytes of a file with a key."""
PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


def private_key(files: SigningKey) -> PrivateKey:
    """The key to sign with. Raises RunFailed without quoting any of it."""
    content = _read(Path(files.path))
    password = _read(Path(files.password), needed=False).strip(b"\r\n")
    boxed = BOXED.search(content)
    try:
        if boxed:
            key: Any = serialization.load_der_private_key(_unboxed(boxed[2], password), None)
        else:
            encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in content
            key = serialization.load_pem_private_key(content, password if encrypted else None)
    except (ValueError, TypeError, KeyError, RecursionError, UnsupportedAlgorithm):
        text = "is no private key in PEM, or the password in the Secret is not the one that it is encrypted with"
        raise RunFailed(Reason.KEY_UNUSABLE, f"{_named(files.path)} {text}") from None
    if not isinstance(key, PrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RunFailed(
            Reason.KEY_UNUSABLE, f"{_named(files.path)} is not a key of ECDSA on P-256, as cosign makes them"
        )
    return key


def public_key(path: Path) -> PublicKey:
    """The key to verify with. Raises RunFailed."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        raise RunFailed(Reason.KEY_UNUSABLE, f"{_named(path)} is no public key in PEM") from None
    if not isinstance(key, PublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RunFailed(Reason.KEY_UNUSABLE, f"{_named(path)} is not a key of ECDSA on P-256, as cosign makes them")
    return key


def fingerprint(key: PublicKey) -> str:
    """``sha256:…`` over the key in DER: what ``openssl pkey -pubin -outform DER | sha256sum`` gives."""
    return f"sha256:{_der_digest(key).hex()}"


def hint(key: PublicKey) -> str:
    """How cosign's bundles name a key."""
    return base64.b64encode(_der_digest(key)).decode()


def _der_digest(key: PublicKey) -> bytes:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def _unboxed(body: bytes, password: bytes) -> bytes:
    """What is in the box. Raises what the caller catches where there is none, or where the password does not open it."""
    from nacl.exceptions import CryptoError  # it is where something is signed; public keys do without
    from nacl.secret import SecretBox

    said = json.loads(base64.b64decode(body))
    texts = said["kdf"]["salt"], said["cipher"]["nonce"], said["ciphertext"]
    salt, nonce, box = (base64.b64decode(text) for text in texts)
    cost = said["kdf"]["params"]
    if (said["kdf"]["name"], said["cipher"]["name"]) != ("scrypt", "nacl/secretbox"):
        raise ValueError
    if cost["N"] not in COSTS or (cost["r"], cost["p"]) != (8, 1):
        raise ValueError
    secret = hashlib.scrypt(password, salt=salt, n=cost["N"], r=8, p=1, maxmem=MEMORY, dklen=SecretBox.KEY_SIZE)
    try:
        return SecretBox(secret).decrypt(box, nonce)
    except CryptoError:
        raise ValueError("the password does not open it") from None


def _read(path: Path, needed: bool = True) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST)
    except FileNotFoundError:
        if not needed:
            return b""
        raise RunFailed(Reason.KEY_UNUSABLE, f"there is no {_named(path)}") from None
    except OSError as error:
        raise RunFailed(Reason.KEY_UNUSABLE, f"{_named(path)} cannot be read: {error.strerror}") from None


def _named(path: str | Path) -> str:
    """The key of the Secret or ConfigMap that a file is."""
    return f"key {Path(path).name}"
