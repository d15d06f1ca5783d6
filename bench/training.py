"""``python -m bench training``: the training loop's throughput beside that of a plain PyTorch loop.

``loops.py`` runs in the trainer's image, in a container on this machine: same model, batches, optimizer, number format and
one thread, taking turns, so that a machine that is busy with something else is so for both.
"""

from bench.figures import Figure
from bench.inside import lines

PATH = ("/repo/operator", "/repo/images/kit", "/repo/images/trainer", "/repo")
TARGET = 0.95
UNIT = "tokens a processor second"


def run() -> list[Figure]:
    """Measure in the image that the checkout makes."""
    rounds = lines("trainer", "bench/loops.py", "/tmp/loops", path=PATH)
    for number, pair in enumerate(rounds, 1):
        print(f"training round {number}: {pair['ours']:.0f} {UNIT}, plain loop {pair['plain']:.0f}", flush=True)
    return judge(rounds)


def judge(rounds: list[dict[str, float]]) -> list[Figure]:
    """The round whose share of the plain loop's speed is the median one."""
    if not rounds:
        return [Figure("training throughput", f"at least {TARGET} of a plain loop's", "not measured", False)]
    shares = sorted((pair["ours"] / pair["plain"], pair["ours"], pair["plain"]) for pair in rounds)
    share, ours, plain = shares[len(shares) // 2]
    value = f"{share:.3f}: {ours:.0f} against {plain:.0f} {UNIT} in the median round of {len(rounds)}, one thread"
    return [Figure("training throughput", f"at least {TARGET} of a plain PyTorch loop's", value, share >= TARGET)]
