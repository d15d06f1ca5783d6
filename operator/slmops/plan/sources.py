"""API sources -> contract sources, and the volumes that they need in the pod.

A reference becomes the digest that the other resource published; an address stays as written until the run resolves
it. Secrets are mounted, never read: the operator has no right to.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from slmops import contract
from slmops.api.conditions import ConditionType
from slmops.api.signing import Keyless, Signing, TrustedRoot, Verification
from slmops.api.sources import AdapterSource, DataSource, LicensePolicy, ModelSource, Output, SecretKey
from slmops.state import Manifest, Observed, Problem, digest8

REGISTRY_KEY = ".dockerconfigjson"
TOKEN_KEY = "token"  # noqa: S105  (the name of a Secret's key)
WHOLE = ""
CREDENTIALS_DIR = f"{contract.CONFIG_DIR}/credentials"
KEYS_DIR = f"{contract.CONFIG_DIR}/keys"
SIGNING_KEY, SIGNING_PASSWORD = "cosign.key", "cosign.password"
"""Keys of a Secret as cosign makes it."""
IDENTITY_TOKEN = "token"  # noqa: S105  (the name of a file)
TOKEN_SECONDS = 600
"""The shortest life that a token can have. The kubelet renews it as long as the pod lives."""
CLAIM = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
VOLUME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


class Unresolved(Exception):  # noqa: N818  (carries a Problem, it is not an error)
    """A reference that cannot be followed now."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass
class Sources:
    """Turns sources into their contract form and collects the pod's volumes on the way."""

    observed: Observed
    licences: LicensePolicy | None = None
    """What the models have to keep to."""
    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)
    service_account: str | None = None
    """Whose pod it is, where the run signs as it."""

    def model(self, source: ModelSource, where: str) -> contract.Source:
        """A model. Raises Unresolved when it refers to something that is not there or not ready."""
        found = self._model(source, where)
        if source.verify is not None:
            found = found.model_copy(update={"verify": self.verification(source.verify)})
        policy = self.licences
        if policy is None:
            return found
        wanted = contract.LicensePolicy(allow=tuple(policy.allow or ()), deny=tuple(policy.deny or ()))
        return found.model_copy(update={"license_policy": wanted})

    def _model(self, source: ModelSource, where: str) -> contract.Source:
        if source.uri is not None:
            return self._address(source.uri, source.credentials, source.endpoint)
        if source.distillation is not None:
            return self._published("Distillation", source.distillation.name, "artifact", where)
        assert source.fine_tune is not None
        return self._published("FineTune", source.fine_tune.name, "artifact", where)

    def adapter(self, source: AdapterSource, where: str) -> contract.Source:
        """An adapter. Raises Unresolved like ``model``."""
        if source.fine_tune is None:
            assert source.uri is not None
            found = self._address(source.uri, source.credentials, source.endpoint)
        else:
            manifest = self._succeeded("FineTune", source.fine_tune.name, where)
            found = self._by_digest(manifest, _adapter_of(manifest, source.fine_tune.adapter, where))
        if source.verify is None:
            return found
        return found.model_copy(update={"verify": self.verification(source.verify)})

    def data(self, source: DataSource) -> contract.Data:
        """A data set."""
        return contract.Data(
            source=self._address(source.uri, source.credentials, source.endpoint),
            format=contract.ExampleFormat(source.format),
            path=source.path,
            columns=source.columns.model_dump(exclude_none=True) if source.columns else {},
            labels=tuple(source.labels or ()),
        )

    def own(self, artifact: contract.Artifact, output: Output) -> contract.Source:
        """Something that an earlier step of the same resource published."""
        return contract.Source(
            uri=f"oci://{artifact.reference}", credentials=self.credentials(output.credentials, REGISTRY_KEY)
        )

    def sink(self, output: Output) -> contract.Sink:
        """Where a run publishes."""
        return contract.Sink(
            repository=output.repository, credentials=self.credentials(output.credentials, REGISTRY_KEY)
        )

    def _address(self, uri: str, secret: SecretKey | None, endpoint: str | None) -> contract.Source:
        default = {"oci": REGISTRY_KEY, "s3": WHOLE}.get(uri.partition("://")[0], TOKEN_KEY)
        if uri.startswith("pvc://"):
            self._claim(re.split("[/#]", uri.removeprefix("pvc://"))[0])
        return contract.Source(uri=uri, credentials=self.credentials(secret, default), endpoint=endpoint)

    def _succeeded(self, kind: str, name: str, where: str) -> Manifest:
        """Another resource, which has come to its end."""
        manifest = self.observed.references.get((kind, name))
        if manifest is None:
            raise Unresolved(_problem("ReferenceNotFound", f"{where}: {kind} {name} does not exist in this namespace",
                                      waiting=True))  # fmt: skip
        status = manifest.get("status") or {}
        succeeded: Manifest = next((c for c in status.get("conditions") or [] if c.get("type") == "Succeeded"), {})
        if succeeded.get("status") == "False":
            raise Unresolved(
                _problem("ReferenceFailed", f"{where}: {kind} {name} failed ({succeeded.get('reason')}); mend it first",
                         waiting=True)
            )  # fmt: skip
        current = status.get("observedGeneration") == manifest["metadata"].get("generation")
        if succeeded.get("status") != "True" or not current:
            raise Unresolved(_problem("ReferenceNotReady", f"{where}: waiting for {kind} {name}", waiting=True))
        return manifest

    def _published(self, kind: str, name: str, field_name: str, where: str) -> contract.Source:
        manifest = self._succeeded(kind, name, where)
        artifact = (manifest["status"].get(field_name) or {}).get("reference")
        if not artifact and (manifest.get("spec") or {}).get("adapters"):
            text = "has several adapters, of which nothing is merged; make a FineTune of the one that is wanted"
            raise Unresolved(_problem("NothingToUse", f"{where}: {kind} {name} {text}"))
        if not artifact:
            raise Unresolved(
                _problem("NothingToUse", f"{where}: {kind} {name} published no full model; set spec.merge: true there")
            )
        return self._by_digest(manifest, artifact)

    def _by_digest(self, manifest: Manifest, artifact: str) -> contract.Source:
        """What another resource has published; it says what it is read with."""
        secret = ((manifest.get("spec") or {}).get("output") or {}).get("credentials")
        return contract.Source(
            uri=f"oci://{artifact}",
            credentials=self.credentials(SecretKey.model_validate(secret) if secret else None, REGISTRY_KEY),
        )

    def credentials(self, secret: SecretKey | None, default_key: str) -> contract.Credentials | None:
        """Mount a Secret; the file of one key, or with ``WHOLE`` the folder of all."""
        if secret is None:
            return None
        key = secret.key or default_key
        volume = _volume(f"secret-{secret.secret}")
        folder = f"{CREDENTIALS_DIR}/{secret.secret}"
        self._mount(
            {"name": volume, "secret": {"secretName": secret.secret, "defaultMode": 0o440}},
            {"name": volume, "mountPath": folder, "readOnly": True},
        )
        return contract.Credentials(path=f"{folder}/{key}".rstrip("/"))

    def verification(self, wanted: Verification) -> contract.Verify:
        """Mount the public key that something has to be signed with, and nothing else of where it is kept; of an identity
        what its certificate is trusted by."""
        if wanted.keyless is not None:
            identity = contract.Identity(
                identity=wanted.keyless.identity,
                issuer=wanted.keyless.issuer,
                root=self._root(wanted.keyless.trusted_root),
            )
            return contract.Verify(identity=identity, provenance=wanted.provenance)
        if wanted.secret is not None:
            path = self._one_key("key", wanted.secret, wanted.key, {"secretName": wanted.secret, "defaultMode": 0o440})
        else:
            path = self._of_config_map("pub", str(wanted.config_map), wanted.key)
        return contract.Verify(key=path, provenance=wanted.provenance)

    def signing(self, wanted: Signing) -> dict[str, contract.SigningKey | contract.Keyless]:
        """What a run that signs is told of it: its fields ``key`` and ``keyless``, of which one is there."""
        if wanted.keyless is not None:
            return {"keyless": self._identity(wanted.keyless)}
        assert wanted.secret is not None
        return {"key": self._signing_key(wanted.secret)}

    def _signing_key(self, secret: str) -> contract.SigningKey:
        """Mount the private key to sign with; a key that is not encrypted has no password."""
        folder = f"{KEYS_DIR}/signing"
        parts = [
            {"secret": {"name": secret, "items": [{"key": key, "path": key}], "optional": optional}}
            for key, optional in ((SIGNING_KEY, False), (SIGNING_PASSWORD, True))
        ]
        self._mount(
            {"name": "signing-key", "projected": {"defaultMode": 0o440, "sources": parts}},
            {"name": "signing-key", "mountPath": folder, "readOnly": True},
        )
        return contract.SigningKey(path=f"{folder}/{SIGNING_KEY}", password=f"{folder}/{SIGNING_PASSWORD}")

    def _identity(self, wanted: Keyless) -> contract.Keyless:
        """Mount a token of the service account that nobody but Fulcio takes: the pod still has none of the API server's."""
        folder = f"{KEYS_DIR}/identity"
        token = {"audience": wanted.audience, "expirationSeconds": TOKEN_SECONDS, "path": IDENTITY_TOKEN}
        self._mount(
            {
                "name": "identity",
                "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]},
            },
            {"name": "identity", "mountPath": folder, "readOnly": True},
        )
        self.service_account = wanted.service_account_name
        return contract.Keyless(
            token=f"{folder}/{IDENTITY_TOKEN}",
            audience=wanted.audience,
            fulcio=contract.Server(url=wanted.fulcio),
            rekor=contract.Server(url=wanted.rekor),
            root=self._root(wanted.trusted_root),
        )

    def _root(self, wanted: TrustedRoot | None) -> contract.Root:
        if wanted is None:
            return contract.Root(url=contract.TUF)
        return contract.Root(path=self._of_config_map("root", wanted.config_map, wanted.key))

    def _of_config_map(self, prefix: str, name: str, key: str) -> str:
        return self._one_key(prefix, name, key, {"name": name}, "configMap")

    def _one_key(self, prefix: str, name: str, key: str, content: Manifest, kind: str = "secret") -> str:
        """Mount one key of a Secret or a ConfigMap, which others are trusted by. Returns the file."""
        volume = _volume(f"{prefix}-{digest8([name, key])}-{name}")
        folder = f"{KEYS_DIR}/{volume}"
        what = {"name": volume, kind: content | {"items": [{"key": key, "path": key}]}}
        self._mount(what, {"name": volume, "mountPath": folder, "readOnly": True})
        return f"{folder}/{key}"

    def _claim(self, claim: str) -> None:
        if not re.fullmatch(CLAIM, claim):
            raise Unresolved(_problem("InvalidSource", f"pvc://{claim}: no PersistentVolumeClaim can have this name"))
        volume = _volume(f"pvc-{claim}")
        self._mount(
            {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}},
            {"name": volume, "mountPath": f"/mnt/pvc/{claim}", "readOnly": True},
        )

    def _mount(self, volume: dict[str, Any], mount: dict[str, Any]) -> None:
        if volume not in self.volumes:
            self.volumes.append(volume)
            self.mounts.append(mount)


def _adapter_of(manifest: Manifest, wanted: str | None, where: str) -> str:
    """The adapter that a FineTune has published; ``wanted``: which one of several."""
    name, spec, status = manifest["metadata"]["name"], manifest.get("spec") or {}, manifest["status"]
    rows = {str(row.get("name")): row for row in status.get("adapters") or []}
    row = rows.get(wanted or "", {}) if rows or wanted else status.get("adapter") or {}
    if spec.get("method") == "DoRA":
        text = (
            "has method DoRA, which rescales the base's weights, too: use LoRA or QLoRA, or quantize its merged model"
        )
    elif rows and wanted is None:
        text = f"has several adapters: name one in fineTune.adapter ({', '.join(sorted(rows))})"
    elif rows and wanted not in rows:
        text = f"has no adapter {wanted}: it has {', '.join(sorted(rows))}"
    elif wanted and not rows:
        text = "has one adapter, which has no name: leave fineTune.adapter out"
    elif not row.get("reference"):
        text = "published no adapter: only methods LoRA and QLoRA make one"
    else:
        return str(row["reference"])
    raise Unresolved(_problem("NothingToUse", f"{where}: FineTune {name} {text}"))


def _volume(name: str) -> str:
    """A volume's name. It has no dots and 63 characters at most; names that lose something get a hash instead."""
    if re.fullmatch(VOLUME, name):
        return name
    return f"{name.replace('.', '-')[:54]}-{digest8(name)}"


def _problem(reason: str, message: str, waiting: bool = False) -> Problem:
    return Problem(ConditionType.INPUTS_RESOLVED, reason, message, waiting)
