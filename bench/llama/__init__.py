"""llama.cpp as a peer: Debian testing's build, in a root of its own, on a model of the same shape."""

import hashlib
import json
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests import pinned
from tests.cluster.layout import CACHE
from tests.cluster.shell import run

HERE = Path(__file__).parent
SUITE, PACKAGE = "forky", "llama.cpp"
# The archive may be a mirror of some day in the past; what it holds is signed all the same.
OPTIONS = ('Acquire::Check-Valid-Until "false"', 'APT::Install-Recommends "false"')
FEW, MANY = 64, 192
INTO = f"""
sed 's/trixie/{SUITE}/' /etc/apt/sources.list > /etc/apt/sources.list.d/{SUITE}.list
printf '%s;\\n' {" ".join(f"'{option}'" for option in OPTIONS)} > /etc/apt/apt.conf.d/99{SUITE}
apt-get -qq update
apt-get -qq -y -o 'Dpkg::Options::=--path-include=/usr/share/doc/llama.cpp-tools/*' install -t {SUITE} llama.cpp-tools
mkdir /tmp/gguf && cd /tmp/gguf
apt-get -qq download python3-gguf/{SUITE}
dpkg-deb -x *.deb .
mkdir -p /opt/llama.cpp/gguf-py
mv usr/lib/python3/dist-packages/gguf /opt/llama.cpp/gguf-py/
rm -rf /tmp/gguf
"""
"""Its programs and its converter go into a Debian of the suite before; Python's library for GGUF goes beside them, since
the package would bring another Python."""


def tokens_a_second(shape: Sequence[int], rounds: int) -> tuple[list[float], int]:
    """Tokens for each second of the processor, on one thread, round by round, and bytes of the model in Q4_0.

    ``shape``: vocabulary, width, inner width, layers, heads, heads of keys and values. A run of few tokens is taken from
    one of many, so that loading the model is no part of it.
    """
    root = _root()
    whole, small = root / "tmp" / "model.gguf", root / "tmp" / "q4.gguf"
    try:
        run(pinned.python(HERE / "constraints.txt"), HERE / "made.py", whole, *map(str, shape))
        run("chroot", root, "llama-quantize", "/tmp/model.gguf", "/tmp/q4.gguf", "Q4_0")
        rates = [(MANY - FEW) / (_seconds(root, MANY) - _seconds(root, FEW)) for _ in range(rounds)]
        return rates, small.stat().st_size
    finally:
        whole.unlink(missing_ok=True)
        small.unlink(missing_ok=True)


def add(container: str) -> None:
    """Put llama.cpp into a container of ours, as whoever wants GGUF puts it into an image."""
    run("buildah", "run", "--isolation=chroot", "--user=0:0", container, "--", "sh", "-ec", INTO)


def _seconds(root: Path, tokens: int) -> float:
    """Of the processor, for a process that loads the model and writes so many tokens."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = run("chroot", root, "llama-bench", "-m", "/tmp/q4.gguf", "-p", "0", "-n", str(tokens), "-t", "1", "-r", "1",
               "--no-warmup", "-o", "json")  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (done,) = json.loads(said)
    if done["n_gen"] != tokens:
        raise RuntimeError(f"llama-bench wrote {done['n_gen']} tokens, not {tokens}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _root() -> Path:
    """A root file system with llama.cpp, kept in the user's cache."""
    recipe = hashlib.sha256(f"{SUITE}{PACKAGE}{OPTIONS}".encode()).hexdigest()[:12]
    root = CACHE / "llama" / recipe
    if not (root / "whole").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        options = [f"--aptopt={option}" for option in OPTIONS]
        run("mmdebstrap", "-q", "--variant=minbase", *options, f"--include={PACKAGE}", SUITE, root)
        (root / "whole").touch()
    return root
