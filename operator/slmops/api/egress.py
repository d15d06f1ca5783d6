"""Who a run may connect to."""

import ipaddress
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from slmops.api.base import ApiModel, Rule, exactly_one_of

HOST = r"^([*][.])?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
CIDR = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"
LINK = ("169.254.0.0/16", "fe80::/10")
"""A node's own link. Clouds keep the node's credentials there, so nothing of it can be listed."""


def _range(text: str) -> str:
    network = ipaddress.ip_network(text, strict=False)
    links = [ipaddress.ip_network(text) for text in LINK]
    if any(network.network_address in link and network.prefixlen >= link.prefixlen for link in links):
        raise ValueError("a node's own link (169.254.0.0/16, fe80::/10) cannot be listed")
    return text


class EgressPeer(ApiModel):
    """Somebody that the run may connect to: a name or a range of addresses, and a port."""

    rules: ClassVar = (
        exactly_one_of("host", "cidr"),
        Rule("!has(self.cidr) || isCIDR(self.cidr)", "expected a range of addresses, for example 10.0.0.7/32", "cidr"),
        Rule(
            "!has(self.cidr) || !isCIDR(self.cidr) ||"
            " !(cidr('169.254.0.0/16').containsCIDR(self.cidr) || cidr('fe80::/10').containsCIDR(self.cidr))",
            "a node's own link (169.254.0.0/16, fe80::/10) cannot be listed",
            "cidr",
        ),
    )

    host: Annotated[str, Field(pattern=HOST, max_length=253)] | None = None
    """Name, or *. and the end of names. The run keeps to it; the network, which knows no names, lets the run out to
    public addresses at this port, or for a Service (name.namespace.svc) to that namespace."""
    cidr: Annotated[str, Field(pattern=CIDR, max_length=64), AfterValidator(_range)] | None = None
    """Addresses. Run and network keep to it."""
    port: Annotated[int, Field(ge=1, le=65535)] = 443
    """TCP port."""
