"""The operator's own settings: one file, one typed model, every field with a default that works.

The chart writes the file from its values. Nothing is read from the environment, so what runs is what the file says.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from slmops.api.variant import Format

Image = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._:/-]*(@sha256:[0-9a-f]{64})?$", max_length=512)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


def _cidr(text: str) -> str:
    return str(ipaddress.ip_network(text, strict=False))  # 10.0.0.7/8 is 10.0.0.0/8, as Kubernetes reads it


Cidr = Annotated[str, AfterValidator(_cidr)]


class SettingsError(Exception):
    """The file cannot be used; the text names the field and what is wrong."""


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class Images(_Section):
    """The container images that the operator starts, best by digest."""

    trainer: Image = "slmops/trainer:0.1.0"
    quantizer: Image = "slmops/quantizer:0.1.0"
    edge: Image = "slmops/edge:0.1.0"
    bench: Image = "slmops/bench:0.1.0"


class Resources(_Section):
    """Requests, and a memory limit, of a container where the resource asks for none."""

    cpu: Quantity = "500m"
    memory: Quantity = "1Gi"
    memory_limit: Quantity = "4Gi"


class Egress(_Section):
    """Who Jobs may connect to."""

    default: Literal["Open", "Deny"] = "Open"
    """Of Jobs whose spec has no ``run.egress``. Open: no policy. Deny: whom the spec names, and nobody else."""
    internal_ranges: tuple[Cidr, ...] = (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7",
    )  # fmt: skip
    """Where pods, Services, nodes and other machines of one's own are: what a policy lets out to a name's port does not
    reach these. All private addresses; the cluster's real ranges let out to other private ones."""


class Quantizer(_Section):
    """What the quantizer's image can do."""

    backends: Annotated[tuple[Format, ...], Field(min_length=1)] = ("ONNX", "Safetensors")
    """Formats that its tool chains make. A variant of another format is refused before any Job."""


class Settings(_Section):
    """Everything that an installation can choose."""

    images: Images = Images()
    plain_http_registries: tuple[str, ...] = ()
    """Registry hosts (``host[:port]``) that speak HTTP without TLS: development clusters only."""
    watch_namespaces: tuple[Name, ...] = ()
    """Only these namespaces are served; all when empty."""
    resync_seconds: Annotated[float, Field(ge=10, le=86400)] = 600
    """How often everything is compared with a fresh list and reconciled, whatever events said."""
    workers: Annotated[int, Field(ge=1, le=256)] = 24
    """Passes at the same time."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    lease_namespace: Name | None = None
    """Where the leader's Lease lies; the operator's own namespace when absent."""
    lease_name: Name = "slmops-operator"
    http_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Port of ``/healthz``, ``/readyz`` and ``/metrics``."""
    default_resources: Resources = Resources()
    egress: Egress = Egress()
    quantizer: Quantizer = Quantizer()


def load(path: Path | None) -> Settings:
    """Read a YAML or JSON file; the defaults when there is none."""
    if path is None:
        return Settings()
    try:
        content: Any = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: a mapping of settings is expected, found {type(content).__name__}")
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError(f"{path}: {problems}") from None
