"""Signatures: who signs what was made, and by whom something has to be signed before it is used."""

from typing import Annotated, ClassVar

from pydantic import Field

from slmops.api.base import DATA_KEY, ApiModel, ObjectName, Rule, exactly_one_of

INSTANCE = r"^https://[A-Za-z0-9][^\s/@]*$"
ISSUER = r"^https://[A-Za-z0-9][!-~]*$"
IDENTITY = r"^[!-~]+$"
AUDIENCE = r"^sigstore([-.][a-z0-9]+)*$"
FULCIO, REKOR = "https://fulcio.sigstore.dev", "https://rekor.sigstore.dev"
"""Sigstore's public instance."""
Instance = Annotated[str, Field(pattern=INSTANCE, max_length=256)]
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=DATA_KEY)]


class TrustedRoot(ApiModel):
    """Whose certificates and logs are trusted: a trusted root in Sigstore's JSON (`cosign trusted-root create`)."""

    config_map: ObjectName
    """ConfigMap in the same namespace."""
    key: DataKey = "trusted_root.json"
    """Key in the ConfigMap."""


class Keyless(ApiModel):
    """Sign with the identity of a service account: a token of it gets a certificate of minutes from Fulcio, and Rekor
    notes the signature where everybody can see it."""

    rules: ClassVar = (
        Rule(
            f"has(self.trustedRoot) || (self.fulcio == '{FULCIO}' && self.rekor == '{REKOR}')",
            "an instance of your own needs trustedRoot, a ConfigMap with its trusted_root.json: nothing else says which of "
            "its certificates and logs to trust",
            "trustedRoot",
        ),
    )

    fulcio: Instance = FULCIO
    """Server that makes certificates."""
    rekor: Instance = REKOR
    """Server with the log (version 1 of its API)."""
    audience: Annotated[str, Field(pattern=AUDIENCE, max_length=63)] = "sigstore"
    """Whom the token is for, as Fulcio expects it: sigstore, or a name that begins with it (sigstore-lab), so that no other
    server takes the token for its own."""
    service_account_name: ObjectName = "default"
    """Service account in the same namespace whose identity it is. Its token is mounted into the Job that signs, and into no
    other; that Job's image is pulled with its imagePullSecrets."""
    trusted_root: TrustedRoot | None = None
    """Of an instance of your own. When absent, what Sigstore's public repository (TUF) says."""


class Identity(ApiModel):
    """Who has to have signed, without a key."""

    identity: Annotated[str, Field(pattern=IDENTITY, min_length=1, max_length=512)]
    """The certificate's subject alternative name, all of it: of a service account
    https://kubernetes.io/namespaces/NAMESPACE/serviceaccounts/NAME, of a person the mail address."""
    issuer: Annotated[str, Field(pattern=ISSUER, max_length=512)]
    """Who vouched for the identity: the issuer of the token that the certificate was made for."""
    trusted_root: TrustedRoot | None = None
    """Of an instance of your own. When absent, what Sigstore's public repository (TUF) says."""


class Verification(ApiModel):
    """What something has to show before it is used. Nothing of it is fetched otherwise."""

    rules: ClassVar = (exactly_one_of("secret", "configMap", "keyless"),)

    secret: ObjectName | None = None
    """Secret with the public key; that key of it alone is mounted, so it may be the one to sign with. In the same
    namespace."""
    config_map: ObjectName | None = None
    """ConfigMap with the public key."""
    key: DataKey = "cosign.pub"
    """Key in the Secret or ConfigMap: a public key of ECDSA on P-256 in PEM, as cosign writes it."""
    keyless: Identity | None = None
    """By whom it has to be signed without a key, with a certificate and an entry in a log."""
    provenance: bool = False
    """Also ask for a provenance statement that is signed with the same key, or by the same identity."""


class Signing(ApiModel):
    """What the results are signed with."""

    rules: ClassVar = (exactly_one_of("secret", "keyless"),)

    secret: ObjectName | None = None
    """Secret with the keys `cosign.key` and `cosign.password`, as `cosign generate-key-pair k8s://namespace/name` makes it.
    It is mounted into the Job that signs, and into no other; the operator never reads it."""
    keyless: Keyless | None = None
    """No key: the identity of a service account. `{}` for Sigstore's public instance."""
