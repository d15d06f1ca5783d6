"""Signatures without a key: by whom they are, once certificate, log and time have been found good.

All of that the library sigstore does: the certificate leads to a trusted authority and was noted by a trusted log, it was
valid when the log took the signature, the log's proof and promise hold, and the entry is of just this signature. Asked for
are one identity and one issuer, both exactly: whoever may get a certificate from the same authority is not meant by it.
"""

from typing import NamedTuple

from cryptography.hazmat import asn1
from cryptography.x509 import (
    Certificate,
    ExtensionNotFound,
    OtherName,
    RFC822Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
)
from sigstore.errors import VerificationError
from sigstore.models import Bundle, InvalidBundle
from sigstore.verify import policy

from slmkit import roots, signing
from slmops.contract import Identity, Root

OTHER_NAME = "1.3.6.1.4.1.57264.1.7"
"""Fulcio's own kind of name: a user of an issuer that has no mail addresses."""
LONGEST = 512


class Who(NamedTuple):
    """Somebody that a certificate is about."""

    identity: str
    issuer: str

    def __str__(self) -> str:
        return f"{self.identity} ({self.issuer})"


class OtherSignerError(signing.NotSignedError):
    """A good signature, by somebody else."""


class _Wanted:
    """The library's policy; it says in our words who was found instead."""

    def __init__(self, wanted: Identity) -> None:
        issuer = policy.AnyOf([policy.OIDCIssuerV2(wanted.issuer), policy.OIDCIssuer(wanted.issuer)])
        self._policy = policy.AllOf([policy.Identity(identity=wanted.identity), issuer])

    def verify(self, cert: Certificate) -> None:
        """Asked of a certificate that is trusted otherwise."""
        try:
            self._policy.verify(cert)
        except (VerificationError, ExtensionNotFound):
            raise OtherSignerError(str(who(cert))) from None


class _Anybody:
    def verify(self, cert: Certificate) -> None:
        """Whoever it is of."""


def opened(wanted: Identity, content: bytes) -> tuple[str, set[str]]:
    """What a bundle says: its statement's predicate type, and the digests that it is about. Raises NotSignedError unless
    it is signed by whom is wanted, and RunFailed where nobody knows whom to trust."""
    return _opened(wanted.root, _Wanted(wanted), content)


def checked(root: Root, content: bytes) -> None:
    """Raises NotSignedError unless others will find it signed, by whomever."""
    _opened(root, _Anybody(), content)


def _opened(root: Root, wanted: policy.VerificationPolicy, content: bytes) -> tuple[str, set[str]]:
    verifier = roots.verifier(root)
    try:
        return signing.stated(*verifier.verify_dsse(Bundle.from_json(content), wanted))
    except signing.NotSignedError:
        raise
    except (VerificationError, InvalidBundle) as error:
        raise signing.NotSignedError(_plain(error)) from None
    except Exception as error:  # what strangers write may make a parser of any library raise anything
        raise signing.NotSignedError(type(error).__name__) from None


def who(cert: Certificate) -> Who:
    """Whom a certificate is about, and who vouched for it."""
    try:
        names = cert.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return Who("nobody", _issuer(cert))
    others = [n.value.decode() for n in names.get_values_for_type(OtherName) if n.type_id.dotted_string == OTHER_NAME]
    found = [*names.get_values_for_type(UniformResourceIdentifier), *names.get_values_for_type(RFC822Name), *others]
    return Who(_printable(found[0]) if found else "nobody", _issuer(cert))


def _issuer(cert: Certificate) -> str:
    found = {extension.oid: extension.value for extension in cert.extensions}
    for oid, read in ((policy.OIDCIssuerV2.oid, _der), (policy.OIDCIssuer.oid, bytes.decode)):
        if oid in found:
            return _printable(read(found[oid].public_bytes()))
    return "unknown"


def _der(content: bytes) -> str:
    return asn1.decode_der(str, content)


def _printable(text: str) -> str:
    """As a report can say it."""
    return "".join(letter if "!" <= letter <= "~" else "?" for letter in text[:LONGEST]) or "nobody"


def _plain(error: Exception) -> str:
    """The library's words, without what strangers may have put into them."""
    line = str(error).partition("\n")[0][:160]
    return "".join(letter for letter in line if " " <= letter <= "~")
