"""A Sigstore instance in the test process, over real HTTP: an issuer of tokens, Fulcio, its log of certificates, and Rekor.

As strict as the real ones where it counts: a token's signature, audience and time are checked, a certificate request has to
be signed, certificates live ten minutes and carry the log's timestamp (RFC 6962), and each entry of Rekor has a promise, a
proof and a signed checkpoint. What a test changes (``audience``, ``entry``, ``refusal``) is answered wrongly on purpose.
"""

import base64
import hashlib
import json
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from slmops import contract
from tests.unit.images.serving import Serving

ISSUER = "https://kubernetes.example"
ISSUER_OID, ISSUER_V2_OID = (ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}") for number in (1, 8))
SCT_OID = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
Json = dict[str, Any]


def account(name: str = "default", namespace: str = "edge-ai") -> str:
    """How Fulcio names a service account."""
    return f"https://kubernetes.io/namespaces/{namespace}/serviceaccounts/{name}"


class FakeSigstore(Serving):
    """The servers; a context manager."""

    def __init__(self, folder: Path, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.issuer = ISSUER
        self.audience = "sigstore"
        self.tokens, self.authority, self.certificates, self.log = (
            ec.generate_private_key(ec.SECP256R1()) for _ in "1234"
        )
        self.known: list[Any] = [self.tokens.public_key()]
        """Keys of those who may say who somebody is."""
        self.root_certificate = _root_certificate(self.authority)
        self.shown: list[str] = []
        """Tokens that Fulcio has seen."""
        self.entries: list[bytes] = []
        """What Rekor holds."""
        self.certified_ago = self.noted_ago = 0
        """Seconds that the servers' clocks are behind."""
        self.entry: Callable[[Json], None] = lambda said: None
        """Changes what Rekor answers."""
        self.refusals: dict[str, list[tuple[int, Json]]] = {"fulcio": [], "rekor": []}
        """What is answered instead, one for each request."""
        super().__init__(ThreadingHTTPServer(address, type("Bound", (_Handler,), {"instance": self})))

    # --- what a run is told

    def token(self, name: str = "default", seconds: int = 600, **claims: Any) -> Path:
        """A service account's token, as the kubelet writes it."""
        now = int(time.time())
        said = {"iss": self.issuer, "sub": f"system:serviceaccount:edge-ai:{name}", "aud": ["sigstore"],
                "iat": now - 5, "nbf": now - 5, "exp": now + seconds,
                "kubernetes.io": {"namespace": "edge-ai", "serviceaccount": {"name": name}}}  # fmt: skip
        path = self.folder / "token"
        path.write_text(jwt.encode(said | claims, self.tokens, "ES256"))
        return path

    def root(self, **changes: Any) -> contract.Root:
        """Its trusted root, as a file."""
        since = {"start": "2020-01-01T00:00:00Z"}

        def log(key: ec.EllipticCurvePrivateKey) -> Json:
            known = {"rawBytes": _text(_der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": since}
            return {"baseUrl": f"https://{self.host}", "hashAlgorithm": "SHA2_256", "publicKey": known,
                    "logId": {"keyId": _text(_key_id(key))}}  # fmt: skip

        chain = [{"rawBytes": _text(self.root_certificate.public_bytes(serialization.Encoding.DER))}]
        said = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "tlogs": [log(self.log)],
                "certificateAuthorities": [{"subject": {"organization": "lab", "commonName": "lab"},
                                            "uri": f"https://{self.host}", "certChain": {"certificates": chain},
                                            "validFor": since}],
                "ctlogs": [log(self.certificates)], "timestampAuthorities": []}  # fmt: skip
        path = self.folder / f"{len(list(self.folder.iterdir()))}-trusted_root.json"  # a name is read once in a process
        path.write_text(json.dumps(said | changes))
        return contract.Root(path=str(path))

    def keyless(self, name: str = "default", root: contract.Root | None = None, **token: Any) -> contract.Keyless:
        """What a run that signs is told."""
        server = contract.Server(url=f"https://{self.host}")
        return contract.Keyless(token=str(self.token(name, **token)), audience="sigstore", fulcio=server, rekor=server,
                                root=root or self.root())  # fmt: skip

    def identity(
        self, name: str = "default", issuer: str = ISSUER, root: contract.Root | None = None
    ) -> contract.Identity:
        """What a run that verifies is told."""
        return contract.Identity(identity=account(name), issuer=issuer, root=root or self.root())

    # --- Fulcio

    def certificate(self, request: Json, token: str) -> list[str]:
        """A chain in PEM. Raises ValueError where it makes none."""
        self.shown.append(token)
        claims = next(filter(None, (self._claims(token, key) for key in self.known)), None)
        if claims is None:
            raise ValueError("There was an error processing the identity token")
        asked = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
        if not asked.is_signature_valid:
            raise ValueError("The signature supplied in the request could not be verified")
        of = claims["kubernetes.io"]
        made = self._certified(
            asked.public_key(), account(of["serviceaccount"]["name"], of["namespace"]), claims["iss"]
        )
        return [found.public_bytes(serialization.Encoding.PEM).decode() for found in (made, self.root_certificate)]

    def _claims(self, token: str, key: Any) -> Json | None:
        try:
            return dict(jwt.decode(token, key, ["ES256", "RS256"], audience=self.audience))
        except jwt.PyJWTError:
            return None

    def _certified(self, key: Any, name: str, issuer: str) -> x509.Certificate:
        now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=self.certified_ago)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root_certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(minutes=10))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(ISSUER_OID, issuer.encode()), critical=False)
            .add_extension(x509.UnrecognizedExtension(ISSUER_V2_OID, asn1.encode_der(issuer)), critical=False)
        )

        def noted(signature: bytes) -> x509.Certificate:
            told = x509.UnrecognizedExtension(SCT_OID, asn1.encode_der(self._timestamps(now, signature)))
            return builder.add_extension(told, critical=False).sign(self.authority, hashes.SHA256())

        before = noted(b"\0" * 8).tbs_precertificate_bytes  # all but the log's timestamp
        by = hashlib.sha256(_der(self.authority)).digest()
        head = struct.pack("!BBQH", 0, 0, _milliseconds(now), 1)
        said = head + by + len(before).to_bytes(3, "big") + before + struct.pack("!H", 0)
        return noted(self.certificates.sign(said, ec.ECDSA(hashes.SHA256())))

    def _timestamps(self, now: datetime, signature: bytes) -> bytes:
        """A list of one timestamp, in the form of TLS."""
        signed = struct.pack("!BBH", 4, 3, len(signature)) + signature
        one = b"\0" + _key_id(self.certificates) + struct.pack("!QH", _milliseconds(now), 0) + signed
        return struct.pack("!HH", len(one) + 2, len(one)) + one

    # --- Rekor

    def note(self, proposed: Json) -> Json:
        """Take an entry of kind dsse, and answer as version 1 does."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        payload = base64.b64decode(envelope["payload"])
        body = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": {
                    "algorithm": "sha256",
                    "value": hashlib.sha256(content["envelope"].encode()).hexdigest(),
                },
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                "signatures": [
                    {"signature": each["sig"], "verifier": verifier}
                    for each, verifier in zip(envelope["signatures"], content["verifiers"], strict=True)
                ],
            },
        }
        self.entries.append(json.dumps(body, separators=(",", ":"), sort_keys=True).encode())
        leaves, index = [_leaf(entry) for entry in self.entries], len(self.entries) - 1
        promised = {
            "body": _text(self.entries[-1]),
            "integratedTime": int(time.time()) - self.noted_ago,
            "logID": _key_id(self.log).hex(),
            "logIndex": index,
        }
        canonical = json.dumps(promised, separators=(",", ":"), sort_keys=True).encode()
        proof = {"checkpoint": self._checkpoint(leaves), "hashes": [h.hex() for h in _path(index, leaves)],
                 "logIndex": index, "rootHash": _tree(leaves).hex(), "treeSize": len(leaves)}  # fmt: skip
        said = promised | {
            "verification": {"inclusionProof": proof, "signedEntryTimestamp": _text(self._by_log(canonical))}
        }
        self.entry(said)
        return {f"{index:064x}": said}

    def _checkpoint(self, leaves: list[bytes]) -> str:
        text = f"lab - 1\n{len(leaves)}\n{_text(_tree(leaves))}\n"
        return f"{text}\n— lab {_text(_key_id(self.log)[:4] + self._by_log(text.encode()))}\n"

    def _by_log(self, said: bytes) -> bytes:
        return self.log.sign(said, ec.ECDSA(hashes.SHA256()))


class _Handler(BaseHTTPRequestHandler):
    instance: FakeSigstore
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        """One of the two."""
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        of = "fulcio" if self.path == "/api/v2/signingCert" else "rekor"
        status, answer = 201, {}
        if self.instance.refusals[of]:
            status, answer = self.instance.refusals[of].pop(0)
        elif self.path == "/api/v2/signingCert":
            try:
                chain = self.instance.certificate(said, self.headers["Authorization"].removeprefix("Bearer "))
                answer = {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}
            except ValueError as error:
                status, answer = 401, {"code": 16, "message": str(error)}
        elif self.path == "/api/v1/log/entries":
            answer = self.instance.note(said)
        else:
            status = 404
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


# --- RFC 6962


def _leaf(content: bytes) -> bytes:
    return hashlib.sha256(b"\0" + content).digest()


def _split(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)


def _tree(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    at = _split(len(leaves))
    return hashlib.sha256(b"\1" + _tree(leaves[:at]) + _tree(leaves[at:])).digest()


def _path(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    at = _split(len(leaves))
    if index < at:
        return [*_path(index, leaves[:at]), _tree(leaves[at:])]
    return [*_path(index - at, leaves[at:]), _tree(leaves[:at])]


# --- keys and certificates


def _root_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "lab"), x509.NameAttribute(NameOID.COMMON_NAME, "lab")]
    )
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(**wanted: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def _key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_der(key)).digest()


def _milliseconds(when: datetime) -> int:
    return int(when.timestamp() * 1000)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
