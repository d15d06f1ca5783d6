"""HTTP to the outside: the address that was looked at is the address that is connected to.

A name is resolved once, every address that it has is judged, and the connection goes to one of them as a number, with
the name only in ``Host`` and in TLS. So a name server that says something else a moment later (DNS rebinding) changes
nothing. Redirects are requests like any other and are judged again. Answers that are packed in transit are not taken:
what unpacks to a thousand times its size is not known beforehand.
"""

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from functools import cache

import httpx

from slmkit import peers
from slmkit.run import RunFailed
from slmops.contract import NODE, Reason

FOR = "slmkit.for"
"""Extension of a request: the host that was asked for, where the one of the request was named by an answer."""
NEVER = tuple(map(ipaddress.ip_network, (*NODE, "0.0.0.0/8", "::/128", "224.0.0.0/3", "ff00::/8")))
"""What is the node's own, nobody, and everybody at once."""
WRAPPED = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 behind a translator (RFC 6052)."""
KEPT_SECONDS = 30.0


class Gate:
    """Whom a client may ask. ``internal``: hosts that the resource names may have private addresses (a registry, a
    teacher), and an answer of such a one may send us to another such; ``own``: the pod itself may be asked, where a
    teacher may run; ``trusted``: ``host[:port]`` that whoever installed the operator vouches for, at any address."""

    def __init__(self, *, internal: bool = False, own: bool = False, trusted: Iterable[str] = ()) -> None:
        self._internal, self._own, self._trusted = internal, own, frozenset(trusted)
        self._known: dict[tuple[str, int, str], tuple[float, list[str]]] = {}

    def trusts(self, url: httpx.URL) -> bool:
        """Whether the installation vouches for the host."""
        return _authority(url) in self._trusted or f"{url.host}:{_port(url)}" in self._trusted

    def addresses(self, url: httpx.URL, asked_for: str = "") -> list[str]:
        """Addresses to connect to. Raises RunFailed where nobody may, httpx.ConnectError where there is none."""
        host, port = url.raw_host.decode("ascii"), _port(url)
        if (known := self.known(url, asked_for)) is not None:
            return known
        by_name = not peers.limited() or peers.named(host, port)
        if not by_name and not peers.ranges() and not (self._own and _is_address(host)):
            raise refusal(host, port)  # not even its name is looked up
        found = [str(info[4][0]) for info in _resolve(host, port)]
        inward = self.trusts(url) or peers.named(host, port, listed=True) or self._inward(host, port, asked_for)
        for text in found:
            address = _plain(text)
            if address.is_loopback and self._own:
                continue
            if not by_name and not peers.listed(address, port):
                raise refusal(host, port)
            never = address.is_loopback or any(address.version == net.version and address in net for net in NEVER)
            if not self.trusts(url) and (never or not (_public(address) or inward or peers.listed(address, port))):
                raise RunFailed(Reason.UNSAFE_SOURCE, f"{host} is an internal address")
        chosen = list(dict.fromkeys(found))
        self._known[host, port, asked_for or host] = (time.monotonic(), chosen)
        return chosen

    def known(self, url: httpx.URL, asked_for: str = "") -> list[str] | None:
        """What was found a moment ago."""
        host = url.raw_host.decode("ascii")
        found = self._known.get((host, _port(url), asked_for or host))
        return found[1] if found is not None and time.monotonic() - found[0] < KEPT_SECONDS else None

    def forget(self, url: httpx.URL) -> None:
        """The addresses did not answer: look them up anew."""
        self._known = {key: found for key, found in self._known.items() if key[:2] != (url.host, _port(url))}

    def _inward(self, host: str, port: int, asked_for: str) -> bool:
        """Whether a private address is what the resource means. Who asks a public host is not sent inwards by it."""
        if not self._internal or asked_for in ("", host):
            return self._internal
        return not all(_public(_plain(str(info[4][0]))) for info in _resolve(asked_for, port))


def refusal(host: str, port: int) -> RunFailed:
    """The failure of asking somebody who is not listed."""
    return RunFailed(Reason.EGRESS_REFUSED, f"{host}:{port} is not listed")


class Transport(httpx.BaseTransport):
    """httpx's transport, behind a gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._inner: dict[str, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request, to the first address that takes the connection."""
        trouble: Exception | None = None
        for address in self._gate.addresses(request.url, str(request.extensions.get(FOR, ""))):
            try:
                answer = self._to(request.url.host).handle_request(_at(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                trouble = error
                continue
            if _is_packed(answer):
                answer.close()
                raise _packed(request)
            return answer
        self._gate.forget(request.url)
        raise trouble or httpx.ConnectError("no address", request=request)

    def _to(self, host: str) -> httpx.HTTPTransport:
        """Connections are kept by name: two names at one address are two servers."""
        if host not in self._inner:
            self._inner[host] = httpx.HTTPTransport(verify=_tls())
        return self._inner[host]

    def close(self) -> None:
        """Close all connections."""
        for transport in self._inner.values():
            transport.close()


class AsyncTransport(httpx.AsyncBaseTransport):
    """The same for asyncio. ``limits`` are those of each host."""

    def __init__(self, gate: Gate, limits: httpx.Limits) -> None:
        self._gate, self._limits = gate, limits
        self._inner: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request, to the first address that takes the connection."""
        trouble: Exception | None = None
        found = self._gate.known(request.url)
        if found is None:
            found = await asyncio.to_thread(self._gate.addresses, request.url)
        for address in found:
            try:
                answer = await self._to(request.url.host).handle_async_request(_at(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                trouble = error
                continue
            if _is_packed(answer):
                await answer.aclose()
                raise _packed(request)
            return answer
        self._gate.forget(request.url)
        raise trouble or httpx.ConnectError("no address", request=request)

    def _to(self, host: str) -> httpx.AsyncHTTPTransport:
        if host not in self._inner:
            self._inner[host] = httpx.AsyncHTTPTransport(verify=_tls(), limits=self._limits)
        return self._inner[host]

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._inner.values():
            await transport.aclose()


def _at(request: httpx.Request, address: str) -> httpx.Request:
    """The same request, to a number and for an answer that is not packed. ``Host`` stands in the headers already."""
    request.headers["Accept-Encoding"] = "identity"
    sni = {} if _is_address(request.url.host) else {"sni_hostname": request.url.host}
    return httpx.Request(
        request.method, request.url.copy_with(host=address), headers=request.headers, stream=request.stream,
        extensions={**request.extensions, **sni},
    )  # fmt: skip


def _is_packed(answer: httpx.Response) -> bool:
    """Whether the client would unpack it, before anybody could count what comes out."""
    said = answer.headers.get("Content-Encoding", "")
    return any(part.strip().lower() not in ("", "identity") for part in said.split(","))


def _packed(request: httpx.Request) -> RunFailed:
    return RunFailed(Reason.UNSAFE_SOURCE, f"{request.url.host} answers packed though asked not to; what it unpacks to "
                     "is not known")  # fmt: skip


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _resolve(host: str, port: int) -> Sequence[tuple[object, object, object, object, tuple[object, ...]]]:
    try:
        return socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"{host}: {error}") from None


def _plain(text: str) -> peers.Address:
    """An address; IPv4 that is dressed as IPv6 without the dress."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address in WRAPPED:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _public(address: peers.Address) -> bool:
    return address.is_global and not address.is_multicast


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _authority(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")
