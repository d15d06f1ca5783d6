"""Bridge, namespaces and links: each node is a network namespace behind a veth on one bridge."""

from pathlib import Path

from tests.cluster.layout import BRIDGE, HOST, HOSTS_MARK, NODES, REGISTRY_HOST, NodeSpec
from tests.cluster.shell import run

HOSTS = Path("/etc/hosts")


def up() -> None:
    """Make bridge, namespaces, links and routes, as far as they are missing. Each is looked at by itself: whoever was
    killed in the middle left some of them, in any state."""
    if not _exists(BRIDGE):
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "replace", f"{HOST}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for node in NODES:
        _node_up(node)
    text = HOSTS.read_text()
    if HOSTS_MARK not in text:
        HOSTS.write_text(f"{text.rstrip()}\n{HOST} {REGISTRY_HOST} {HOSTS_MARK}\n")


def _node_up(node: NodeSpec) -> None:
    inside = ("ip", "-n", node.netns)
    if not run(*inside, "-br", "link", check=False):  # it is not there, or only its file is
        run("ip", "netns", "del", node.netns, quiet=True)
        run("ip", "link", "del", node.veth, quiet=True)  # of a namespace that had this name before
        run("ip", "netns", "add", node.netns)
    if not _exists(node.veth):
        run("ip", "link", "add", node.veth, "type", "veth", "peer", "name", "eth0", "netns", node.netns)
    run("ip", "link", "set", node.veth, "master", BRIDGE)
    run(*inside, "addr", "replace", f"{node.address}/24", "dev", "eth0")
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "link", "set", "eth0", "up")
    run(*inside, "route", "replace", "default", "via", HOST)
    for peer in NODES:
        if peer is not node:
            run(*inside, "route", "replace", peer.pods, "via", peer.address)
    run("nsenter", f"--net=/run/netns/{node.netns}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    run("ip", "link", "set", node.veth, "up")
    run("ip", "route", "replace", node.pods, "via", node.address)


def _exists(link: str) -> bool:
    """Whether the host has a link of that name."""
    return bool(run("ip", "-br", "link", "show", "dev", link, check=False))


def down() -> None:
    """Take away what ``up`` made."""
    for node in NODES:
        run("ip", "link", "del", node.veth, quiet=True)
        run("ip", "netns", "del", node.netns, quiet=True)
    run("ip", "link", "del", BRIDGE, quiet=True)
    text = HOSTS.read_text()
    if HOSTS_MARK in text:
        HOSTS.write_text("".join(line for line in text.splitlines(keepends=True) if HOSTS_MARK not in line))


def cut(node: NodeSpec) -> None:
    """Pull the node's plug; what runs on it goes on running."""
    run("ip", "link", "set", node.veth, "down")


def heal(node: NodeSpec) -> None:
    """Put the plug back in."""
    run("ip", "link", "set", node.veth, "up")
    run("ip", "route", "replace", node.pods, "via", node.address)


def slow(node: NodeSpec, rate: str) -> None:
    """Limit what the node receives and sends, for example ``1mbit``."""
    for prefix in ([], ["-n", node.netns]):
        device = node.veth if not prefix else "eth0"
        run("tc", *prefix, "qdisc", "replace", "dev", device, "root", "tbf", "rate", rate, "burst", "32kbit", "latency",
            "400ms")  # fmt: skip


def unslow(node: NodeSpec) -> None:
    """Lift the limit."""
    run("tc", "qdisc", "del", "dev", node.veth, "root", quiet=True)
    run("tc", "-n", node.netns, "qdisc", "del", "dev", "eth0", "root", quiet=True)
