"""``make demo``: from an empty machine to a model that answers on edge nodes, with what happens said as it happens."""

import argparse
import json
import re
import subprocess
import sys
import time
from typing import Any

from demo.steps import (
    CHAIN,
    NAMESPACE,
    STILL_SECONDS,
    Kubectl,
    Watch,
    build_images,
    check_tools,
    condition,
    ensure_teacher,
    examples,
    install,
    wait_for,
)
from demo.summary import summary
from slmkit.run import RunFailed
from tests.cluster import choose
from tests.cluster.shell import Failed


class Teller:
    """Lines of what happens. What only counts up is said every tenth part, and always on a terminal, in place."""

    def __init__(self) -> None:
        self._last, self._shown, self._open = "", "", False
        self._terminal = sys.stdout.isatty()

    def __call__(self, text: str) -> None:
        """Say it, unless it was said last."""
        if text == self._last:
            return
        self._last = text
        coarse = re.sub(r"(\d*)\d%", r"\1?%", re.sub(r", \S+( s)? to go", "", text))
        counts, again = coarse != text, coarse == self._shown
        self._shown = coarse
        line = f"[{time.strftime('%H:%M:%S')}] {text}"
        if self._terminal:
            print("\r\x1b[K" + line, end="" if counts else "\n", flush=True)
            self._open = counts
        elif not again:
            print(line, flush=True)

    def close(self) -> None:
        """End a line that is still open."""
        if self._open:
            print(flush=True)
        self._open = False


tell = Teller()


def main() -> int:
    """The demo."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("only", nargs="?", choices=["images"], help="stop after this step")
    options = parser.parse_args()
    begun = time.monotonic()
    try:
        cluster = choose()
        kubectl = Kubectl(cluster)
        check_tools()
        step(1, "cluster")
        cluster.up()
        step(2, "images")
        images = build_images(cluster)
        if options.only == "images":
            return 0
        step(3, "operator: helm installs the chart")
        install(kubectl, images, *cluster.plain_http)
        step(4, "data sets, and a teacher that is trained on them (about 10 min on two cores, once)")
        ensure_teacher(kubectl, images, tell)
        step(5, "the chain: kubectl apply -f crds/examples/")
        for text in examples(cluster):
            kubectl("apply", "-f", "-", stdin=text)
        retry_failed(kubectl)
        follow(kubectl)
        step(6, "the result")
        summary(kubectl, time.monotonic() - begun)
    except (Failed, RunFailed, RuntimeError, AssertionError, subprocess.CalledProcessError, OSError) as error:
        tell.close()
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        tell.close()
        print("demo: interrupted; `make demo` goes on, `make cluster-down` stops the cluster", file=sys.stderr)
        return 130
    return 0


def step(number: int, text: str) -> None:
    """One of the demo's six steps."""
    tell.close()
    print(f"\n[{time.strftime('%H:%M:%S')}] {number}/6 {text}", flush=True)


def retry_failed(kubectl: Kubectl) -> None:
    """What an earlier demo left behind as failed is tried again, as a user would."""
    for kind, name, type in CHAIN:

        def failed(kind: str = kind, name: str = name, type: str = type) -> bool:
            return bool(condition(kubectl.get(kind, name), type).get("status") == "False")

        if failed():
            tell(f"{kind}/{name} failed in an earlier run: trying again")
            kubectl("annotate", kind, name, "-n", NAMESPACE, f"slmops.dev/retry={time.time():.0f}", "--overwrite")
            wait_for(f"another try of {kind}/{name}", lambda: not failed(), 60)


def follow(kubectl: Kubectl) -> None:
    """Say what happens until the chain is done."""
    watch = Watch()
    for kind, name, type in CHAIN:
        while True:
            manifest = kubectl.get(kind, name)
            status = (manifest or {}).get("status") or {}
            found = condition(manifest, type)
            if found.get("status") == "True" and status.get("observedGeneration"):
                tell(f"{kind}/{name}: {status.get('phase')}")
                break
            if found.get("status") == "False" and type == "Succeeded":
                raise RuntimeError(f"{kind}/{name} failed: {found['reason']}: {found['message']}")
            if status.get("phase") == "Degraded" and (status.get("lastOutcome") or {}).get("outcome") == "RolledBack":
                raise RuntimeError(f"{kind}/{name} was rolled back: {status['lastOutcome'].get('message')}")
            told = f"{kind}/{name}: {_stage(status)}"
            if watch.still(told):
                raise AssertionError(f"{told} has not moved for {STILL_SECONDS // 60} min: {json.dumps(status)[:1500]}")
            tell(told)
            time.sleep(2)


def _stage(status: dict[str, Any]) -> str:
    progress = status.get("progress") or {}
    parts = [status.get("phase") or "Pending"]
    if progress.get("percent") is not None:
        parts[0] += f" {progress['percent']}%"
    if progress.get("eta"):
        parts.append(f"{progress['eta']} to go")
    if status.get("wave"):
        parts.append(f"wave {status['wave']['name']}")
    if status.get("activity"):
        parts.append(status["activity"])
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
