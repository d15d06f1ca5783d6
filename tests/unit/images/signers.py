"""Key pairs, private keys as ``cosign generate-key-pair`` writes them, and signatures of the older form."""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nacl.secret import SecretBox

from slmkit import keys, signing
from slmops.contract import SigningKey, Source, Verify
from tests.unit.images.fakeregistry import MANIFEST, FakeRegistry

PASSWORD = b"correct horse"
NONCE, SALT = bytes(range(SecretBox.NONCE_SIZE)), bytes(32)


def boxed(key: Any, password: bytes = PASSWORD, *, cost: int = 2**15, label: str = "SIGSTORE", **change: Any) -> bytes:
    """A private key in cosign's box; ``change`` replaces parts of its JSON."""
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret = _secret(password, cost)
    said = {
        "kdf": {"name": "scrypt", "params": {"N": cost, "r": 8, "p": 1}, "salt": base64.b64encode(SALT).decode()},
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(NONCE).decode()},
        "ciphertext": base64.b64encode(SecretBox(secret).encrypt(der, NONCE).ciphertext).decode(),
    }
    body = base64.encodebytes(json.dumps(said | change).encode())
    return b"-----BEGIN ENCRYPTED %s PRIVATE KEY-----\n%s-----END ENCRYPTED %s PRIVATE KEY-----\n" % (
        label.encode(), body, label.encode(),
    )  # fmt: skip


@cache
def _secret(password: bytes, cost: int) -> bytes:
    """Slow on purpose, so it is made once."""
    return hashlib.scrypt(password, salt=SALT, n=cost, r=8, p=1, maxmem=keys.MEMORY, dklen=32)


def pkcs8(key: Any, password: bytes | None = None) -> bytes:
    """A private key in PEM, plain or encrypted."""
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))


def public_pem(key: Any) -> bytes:
    """Its public half."""
    return bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@dataclass
class Signer:
    """A key pair in a folder, as the pods find it."""

    folder: Path
    key: ec.EllipticCurvePrivateKey

    @property
    def files(self) -> SigningKey:
        """As a run names it."""
        return SigningKey(path=str(self.folder / "cosign.key"), password=str(self.folder / "cosign.password"))

    @property
    def public(self) -> Path:
        """The half that everybody may have."""
        return self.folder / "cosign.pub"

    @property
    def fingerprint(self) -> str:
        """How reports name it."""
        return keys.fingerprint(self.key.public_key())

    def wants(self, address: str, provenance: bool = False) -> Source:
        """A source that has to be signed with it."""
        return Source(uri=f"oci://{address}", verify=Verify(key=str(self.public), provenance=provenance))

    def older(self, registry: FakeRegistry, name: str, digest: str, about: str | None = None) -> None:
        """Sign as cosign 2 does; ``about``: what the signature is of, where that is another digest."""
        payload = json.dumps({
            "critical": {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": about or digest},
                         "type": "cosign container image signature"},
            "optional": None,
        }).encode()  # fmt: skip
        signature = base64.b64encode(self.key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
        layer = registry.hold(name, payload) | {"mediaType": signing.SIMPLE,
                                                "annotations": {signing.SIMPLE_SIGNATURE: signature}}  # fmt: skip
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": registry.hold(name, b"{}"), "layers": [layer]}
        registry.publish(name, manifest, f"{digest.replace(':', '-')}.sig")


def signer(folder: Path) -> Signer:
    """A new key pair."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "cosign.key").write_bytes(pkcs8(key))  # scrypt, in a box, is slow on purpose
    (folder / "cosign.pub").write_bytes(public_pem(key))
    return Signer(folder, key)
