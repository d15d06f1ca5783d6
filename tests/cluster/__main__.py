"""``python -m tests.cluster COMMAND``: the cluster from a shell."""

import argparse
import contextlib
import os
import sys

from tests.cluster import choose
from tests.cluster.binaries import PROGRAMS, binary, build
from tests.cluster.cluster import Cluster
from tests.cluster.layout import KUBECONFIG, LOGS, REGISTRY
from tests.cluster.preflight import preflight
from tests.cluster.shell import Failed, alive, names


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="a real Kubernetes on this machine")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("preflight", help="say what this machine lacks, install what can be")
    commands.add_parser("up", help="start the cluster, or what of it does not run")
    commands.add_parser("down", help="stop it").add_argument("--purge", action="store_true", help="forget its state")
    commands.add_parser("status", help="what runs")
    commands.add_parser("build", help="build its programs")
    commands.add_parser("env", help='print shell variables: eval "$(python -m tests.cluster env)"')
    commands.add_parser("where", help="path of one of its programs, built if need be").add_argument("program")
    commands.add_parser("kubectl", help="run kubectl").add_argument("arguments", nargs=argparse.REMAINDER)
    for name in ("cut", "heal", "kill", "start", "unslow", "fill", "unfill"):
        commands.add_parser(name, help=f"{name} a node").add_argument("node")
    slow = commands.add_parser("slow", help="limit a node's link")
    slow.add_argument("node")
    slow.add_argument("rate")
    commands.add_parser("kwok", help="add simulated nodes").add_argument("nodes", type=int)
    commands.add_parser("kwok-stop", help="take simulated nodes away")
    commands.add_parser("enforce", help="enforce NetworkPolicies, which are only stored otherwise")
    commands.add_parser("lift", help="enforce them no longer")
    commands.add_parser("kueue", help="start Kueue")
    commands.add_parser("kueue-stop", help="take Kueue and its queues away")
    options = parser.parse_args()
    try:
        if options.command == "up":
            choose().up()
            return 0
        return _do(Cluster(), options)
    except Failed as failed:
        print(f"cluster: {failed}", file=sys.stderr)
        return 1


def _do(cluster: Cluster, options: argparse.Namespace) -> int:
    match options.command:
        case "preflight":
            preflight()
        case "down":
            cluster.down(options.purge)
        case "build":
            cluster.build()
        case "status":
            for name in names():
                print(f"{name:32} {'running' if alive(name) else 'dead'}")
            print("healthy" if names() and cluster.healthy() else "not healthy")
        case "where":
            if not binary(options.program).exists():
                with contextlib.redirect_stdout(sys.stderr):
                    build(next(p for p in PROGRAMS if options.program in p.makes))
            print(binary(options.program))
        case "env":
            print(f"export KUBECONFIG={KUBECONFIG} REGISTRY={REGISTRY} PATH={binary('kubectl').parent}:"
                  f"{binary('helm').parent}:{binary('crane').parent}:$PATH  # logs: {LOGS}")  # fmt: skip
        case "kubectl":
            os.execv(binary("kubectl"), ["kubectl", "--kubeconfig", str(KUBECONFIG), *options.arguments])
        case "slow":
            cluster.node(options.node).slow(options.rate)
        case "kwok":
            cluster.kwok(options.nodes)
        case "kwok-stop":
            cluster.kwok_stop()
        case "enforce":
            cluster.enforce()
        case "lift":
            cluster.lift()
        case "kueue":
            cluster.kueue()
        case "kueue-stop":
            cluster.kueue_stop()
        case action:
            getattr(cluster.node(options.node), action)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
