"""Whom this process may connect to. One run is one process, so the list is the process's own.

Nothing here connects: ``net`` asks these questions before it does.
"""

import ipaddress
from collections.abc import Sequence

from slmops.contract import Peer

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_allowed: tuple[Peer, ...] | None = None


def limit(peers: Sequence[Peer] | None) -> None:
    """From now on only these; None: nobody is listed, and public addresses may be asked."""
    global _allowed
    _allowed = None if peers is None else tuple(peers)


def limited() -> bool:
    """Whether there is a list."""
    return _allowed is not None


def named(host: str, port: int, listed: bool = False) -> bool:
    """Whether the list has this name (or a pattern for it) with this port; with ``listed`` in the resource's own words."""
    found = [peer for peer in _allowed or () if peer.port == port and (peer.listed or not listed)]
    return any(_is(peer.host.lower(), host.lower().rstrip(".")) for peer in found)


def ranges() -> bool:
    """Whether the list has ranges of addresses, which a name may turn out to lie in."""
    return any("/" in peer.host for peer in _allowed or ())


def listed(address: Address, port: int) -> bool:
    """Whether the list has this address, alone or in a range, with this port."""
    found = [peer for peer in _allowed or () if peer.port == port and peer.listed]
    return any(_holds(peer.host, address) for peer in found)


def _is(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _holds(text: str, address: Address) -> bool:
    try:
        network = ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return False
    return address.version == network.version and address in network
