"""Who a run's pods may connect to: the list that the run keeps to, and the NetworkPolicy around it.

Two walls, because neither is enough alone. The run knows names: its clients look up, judge and connect to nobody else
(``slmkit.net``). The network knows addresses, ports and pods, and holds for whatever else runs in the pod. A name of
somebody in the list opens its port to public addresses, a Service's name its namespace; the operator looks up nothing,
so a policy never depends on what a name server said at some time.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from slmops import contract
from slmops.api.egress import NODE, Network, of_the_node, within
from slmops.api.run import RunSpec
from slmops.settings import Settings
from slmops.state import JOB_NAME_LABEL, LABEL_KIND, LABEL_NAME, Manifest

EVERYWHERE = ("0.0.0.0/0", "::/0")
HUB = ("huggingface.co", "*.huggingface.co", "*.hf.co")
"""Hugging Face's hub, and where it keeps large files."""
AMAZON = "*.amazonaws.com"
DNS_PORT = 53
PORTS = {"https": 443, "http": 80}


def peers(run: BaseModel, run_spec: RunSpec, settings: Settings) -> tuple[contract.Peer, ...] | None:
    """Who the run may connect to: whom it names itself, and whom the spec lists. None: nobody is kept from anything."""
    if run_spec.egress is None and settings.egress.default == "Open":
        return None
    listed = [contract.Peer(host=str(p.host or p.cidr), port=p.port, listed=True) for p in run_spec.egress or ()]
    plain = settings.plain_http_registries
    named = [contract.Peer(host=host, port=port) for host, port in dict.fromkeys(_named(run, plain))]
    return (*listed, *named)


def policy(
    name: str, meta: Manifest, labels: Manifest, allowed: Iterable[contract.Peer], settings: Settings
) -> Manifest:
    """The NetworkPolicy of the Job of that name. Pods of the same resource may talk to each other: ranks of a training
    do, and a benchmark asks servers."""
    together = {key: labels[key] for key in (LABEL_KIND, LABEL_NAME)}
    dns = [{"port": DNS_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]
    rules: list[Manifest] = [{"ports": dns}, {"to": [{"podSelector": {"matchLabels": together}}]}]
    for peer in allowed:
        rule = _rule(peer, meta["namespace"], settings)
        if rule is not None and rule not in rules:
            rules.append(rule)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {
            "podSelector": {"matchLabels": {JOB_NAME_LABEL: name}},
            "policyTypes": ["Egress"],
            "egress": rules,
        },
    }


def _rule(peer: contract.Peer, namespace: str, settings: Settings) -> Manifest | None:
    ports = [{"port": peer.port, "protocol": "TCP"}]
    internal = settings.egress.internal_ranges
    network = _network(peer.host)
    if network is not None:
        if of_the_node(network):
            return None  # never, whatever is listed
        return {"to": [_block(network, NODE)], "ports": ports}
    if (inside := service_namespace(peer.host, namespace)) is not None:
        # A policy sees the port of the pod, which the Service's name does not tell.
        return {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": inside}}}]}
    outside = [text for text in EVERYWHERE if text not in internal]
    blocks = [_block(ipaddress.ip_network(text), (*internal, *NODE)) for text in outside]
    return {"to": blocks, "ports": ports} if blocks else None  # a rule to nobody is one to everybody


def service_namespace(host: str, own: str) -> str | None:
    """The namespace of a Service by its name in the cluster; None for any other name."""
    parts = host.rstrip(".").split(".")
    if len(parts) == 1:
        return own
    ends = parts[2:] in (["svc"], ["svc", "cluster", "local"])
    return parts[1] if ends else None


def _block(network: Network, but: Iterable[str]) -> Manifest:
    excepted = [text for text in but if (n := ipaddress.ip_network(text)) != network and within(n, network)]
    return {"ipBlock": {"cidr": str(network), **({"except": excepted} if excepted else {})}}


def _network(host: str) -> Network | None:
    try:
        return ipaddress.ip_network(host.strip("[]"), strict=False)
    except ValueError:
        return None


def _named(value: Any, plain: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Host and port of everybody whom a run's configuration names, at any depth: a run that learns to name somebody else
    needs nothing here."""
    if isinstance(value, contract.Source):
        yield from _of_source(value, plain)
        yield from _named(value.verify, plain)
    elif isinstance(value, contract.Sink):
        yield _registry(value.repository, plain)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            part = getattr(value, name)
            if name == "url" and isinstance(part, str):
                yield _server(part)
            else:
                yield from _named(part, plain)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _named(part, plain)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _named(part, plain)


def _of_source(source: contract.Source, plain: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    scheme, _, rest = source.uri.partition("://")
    if scheme == "oci":
        yield _registry(rest, plain)
    elif scheme in PORTS:
        yield _server(source.uri)
    elif scheme == "hf":
        yield from ((host, PORTS["https"]) for host in HUB)
    elif scheme == "s3":
        yield _server(source.endpoint) if source.endpoint else (AMAZON, PORTS["https"])


def _registry(reference: str, plain: tuple[str, ...]) -> tuple[str, int]:
    authority = reference.partition("/")[0]
    return _server(f"{'http' if authority in plain else 'https'}://{authority}")


def _server(url: str) -> tuple[str, int]:
    """Host and port of a URL; a URL of no sense names nobody, which is refused later with its reason."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or PORTS.get(parts.scheme, PORTS["https"])
    except ValueError:
        return "", PORTS["https"]
