"""The local cluster's network comes up from whatever a killed run left, with a small ``ip`` in the kernel's place."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster import network
from tests.cluster.layout import BRIDGE, HOST, HOSTS_MARK, NODES
from tests.cluster.shell import Failed

Link = tuple[str, str]
"""Namespace, empty for the host, and name."""


class Killed(Exception):  # noqa: N818  (what happens to us, no error of ours)
    """SIGKILL between two commands."""


@dataclass
class Kernel:
    """Links, addresses and routes by namespace; what is there cannot be added again."""

    namespaces: set[str] = field(default_factory=lambda: {""})
    broken: set[str] = field(default_factory=set)
    """Namespaces of which only the file was made."""
    links: dict[Link, set[str]] = field(default_factory=dict)
    """What is known of a link: up, its addresses, its master."""
    routes: set[tuple[str, ...]] = field(default_factory=set)
    forwarding: set[str] = field(default_factory=set)
    commands: int = 0
    dies_after: int | None = None

    def run(self, *command: str, quiet: bool = False, check: bool = True) -> str:
        """One command, as ``shell.run`` runs it."""
        if self.commands == self.dies_after:
            raise Killed
        self.commands += 1
        try:
            return self._do(list(command))
        except (KeyError, ValueError) as error:
            if quiet or not check:
                return ""
            raise Failed(f"{' '.join(command)}: {error}") from None

    def _do(self, words: list[str]) -> str:
        if words[0] == "nsenter":
            self.forwarding.add(self._inside(words[1].rpartition("/")[2]))
            return ""
        space = self._inside(words[2]) if words[1] == "-n" else ""
        words = [word for word in (words[3:] if words[1] == "-n" else words[1:]) if word != "-br"]
        match words:
            case ["link"]:
                return "lo UNKNOWN"
            case ["link", "show", "dev", name]:
                return f"{name} {self.links[space, name]}"
            case ["link", "add", name, "type", "bridge"]:
                self._new((space, name))
            case ["link", "add", name, "type", "veth", "peer", "name", peer, "netns", other]:
                self._new((space, name), (self._inside(other), peer))
            case ["link", "del", name]:
                self.links.pop((space, name))
                self.links = {link: facts for link, facts in self.links.items() if link[0] != name}  # its other end
            case ["link", "set", "lo", "up"]:
                pass
            case ["link", "set", name, "up"]:
                self.links[space, name].add("up")
            case ["link", "set", name, "master", master]:
                assert (space, master) in self.links
                self.links[space, name].add(master)
            case ["addr", "replace", address, "dev", name]:
                self.links[space, name].add(address)
            case ["route", "replace", *route]:
                self.routes.add((space, *route))
            case ["netns", "add", name]:
                if name in self.namespaces | self.broken:
                    raise ValueError("File exists")
                self.namespaces.add(name)
            case ["netns", "del", name]:
                if name not in self.namespaces | self.broken:
                    raise ValueError("No such file")
                self.namespaces.discard(name)
                self.broken.discard(name)
            case _:
                raise AssertionError(f"a command that the tests do not know: {words}")
        return ""

    def _inside(self, namespace: str) -> str:
        if namespace not in self.namespaces:
            raise ValueError(f"no namespace {namespace}")
        return namespace

    def _new(self, *links: Link) -> None:
        if any(link in self.links for link in links):
            raise ValueError("File exists")
        self.links |= {link: set() for link in links}

    def state(self) -> tuple[object, ...]:
        """All that counts."""
        return self.namespaces, self.broken, self.links, self.routes, self.forwarding


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    """A machine that has no network of ours yet."""
    found = Kernel()
    monkeypatch.setattr(network, "HOSTS", tmp_path / "hosts")
    network.HOSTS.write_text("127.0.0.1 localhost\n")
    monkeypatch.setattr(network, "run", lambda *command, **how: found.run(*command, **how))
    return found


def whole() -> tuple[object, ...]:
    """The state after a run that nobody disturbed."""
    links: dict[Link, set[str]] = {("", BRIDGE): {f"{HOST}/24", "up"}}
    routes: set[tuple[str, ...]] = set()
    for node in NODES:
        links[("", node.veth)] = {BRIDGE, "up"}
        links[(node.netns, "eth0")] = {f"{node.address}/24", "up"}
        routes |= {("", node.pods, "via", node.address), (node.netns, "default", "via", HOST)}
        routes |= {(node.netns, peer.pods, "via", peer.address) for peer in NODES if peer is not node}
    spaces = {node.netns for node in NODES}
    return spaces | {""}, set(), links, routes, spaces


def test_it_is_made_and_made_once(kernel: Kernel) -> None:
    network.up()
    network.up()
    assert kernel.state() == whole()
    assert network.HOSTS.read_text().count(HOSTS_MARK) == 1


def test_a_run_that_was_killed_anywhere_is_taken_up_where_it_was(kernel: Kernel) -> None:
    network.up()
    for number in range(kernel.commands):
        kernel.__init__()  # type: ignore[misc]
        kernel.dies_after = number
        with pytest.raises(Killed):
            network.up()
        kernel.dies_after = None
        network.up()
        assert kernel.state() == whole(), f"killed before command {number}"


def test_a_namespace_of_which_only_the_file_is_there_is_made_anew(kernel: Kernel) -> None:
    kernel.broken.add(NODES[1].netns)
    network.up()
    assert kernel.state() == whole()


def test_what_was_made_is_taken_away_again(kernel: Kernel) -> None:
    network.up()
    network.down()
    assert not kernel.links
    assert kernel.namespaces == {""}
    assert HOSTS_MARK not in network.HOSTS.read_text()
