"""Who a run may connect to."""

import ipaddress
import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from slmops import contract
from slmops.api.base import ApiModel, Rule, exactly_one_of

HOST = r"^([*][.])?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
CIDR = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"
NODE = (*contract.NODE, "64:ff9b::a9fe:0/112", "2002:a9fe::/32")
"""What is a node's own, its link also dressed as IPv6. Nothing of it can be listed."""
REFUSED = "a node's own link (169.254.0.0/16, fe80::/10) and a cloud's metadata service cannot be listed"
NUMBERS = r"(^|[.])([0-9]+|0x[0-9a-f]*)$"
"""How names end that a resolver takes for addresses: 2852039166 is 169.254.169.254."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def of_the_node(network: Network) -> bool:
    """Whether the network is a node's alone: all of it lies in one of NODE's."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return any(within(network, ipaddress.ip_network(text)) for text in NODE)


def within(inner: Network, outer: Network) -> bool:
    """Whether all of one network lies in the other, which may be the same."""
    return inner.version == outer.version and inner.overlaps(outer) and inner.prefixlen >= outer.prefixlen


def _range(text: str) -> str:
    if of_the_node(ipaddress.ip_network(text, strict=False)):
        raise ValueError(REFUSED)
    return text


def _host(text: str) -> str:
    if re.search(NUMBERS, text):
        _range(text)  # an address, or nothing
    return text


def _no_node(call: str, value: str) -> str:
    """CEL: the value is in none of NODE's networks."""
    return "!(" + " || ".join(f"cidr('{network}').{call}({value})" for network in NODE) + ")"


class EgressPeer(ApiModel):
    """Somebody that the run may connect to: a name or a range of addresses, and a port."""

    rules: ClassVar = (
        exactly_one_of("host", "cidr"),
        Rule(
            f"!has(self.host) || !self.host.matches('{NUMBERS}') || isIP(self.host)",
            "an address is written as four numbers, for example 10.0.0.7",
            "host",
        ),
        Rule(f"!has(self.host) || !isIP(self.host) || {_no_node('containsIP', 'self.host')}", REFUSED, "host"),
        Rule("!has(self.cidr) || isCIDR(self.cidr)", "expected a range of addresses, for example 10.0.0.7/32", "cidr"),
        Rule(
            f"!has(self.cidr) || !isCIDR(self.cidr) || {_no_node('containsCIDR', 'self.cidr')}",
            REFUSED,
            "cidr",
        ),
    )

    host: Annotated[str, Field(pattern=HOST, max_length=253), AfterValidator(_host)] | None = None
    """Name, or *. and the end of names. The run keeps to it; the network, which knows no names, lets the run out to
    public addresses at this port, or for a Service (name.namespace.svc) to that namespace."""
    cidr: Annotated[str, Field(pattern=CIDR, max_length=64), AfterValidator(_range)] | None = None
    """Addresses. Run and network keep to it."""
    port: Annotated[int, Field(ge=1, le=65535)] = 443
    """TCP port."""
