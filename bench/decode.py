"""``python -m bench decode``: how small and how fast a model is in INT4, beside PyTorch and llama.cpp.

``decoding.py`` runs in the quantizer's image, in a container on this machine. llama.cpp's part is Debian's build of it on a
model of the same shape. One thread each; processor time. Nothing of this needs the cluster but its registry for the image.
"""

from statistics import median
from typing import Any

from bench import llama
from bench.figures import Figure, mb
from bench.inside import lines

PATH = ("/repo/operator", "/repo/images/kit", "/repo/images/trainer", "/repo/images/quantizer", "/repo")
SMALLER, FASTER = 0.75, 1.4
ROUNDS = 5


def run() -> list[Figure]:
    """Measure in the image that the checkout makes."""
    said = lines("quantizer", "bench/decoding.py", "/tmp/decoding", path=PATH)
    rates = [line["rates"] for line in said if "rates" in line]
    for number, each in enumerate(rates, 1):
        told = ", ".join(f"{name} {rate:.1f}" for name, rate in sorted(each.items()))
        print(f"decode round {number}, tokens a processor second: {told}", flush=True)
    shape = next(line["shape"] for line in said if "shape" in line)
    return judge(said, rates, *llama.tokens_a_second(shape, ROUNDS))


def judge(
    said: list[dict[str, Any]], rates: list[dict[str, float]], peers: list[float], peer_bytes: int
) -> list[Figure]:
    """The figures with their targets."""
    about = next(line for line in said if "parameters" in line)
    half = 2 * about["parameters"]
    beside = next(line["half"] for line in said if "half" in line)
    figures = [
        Figure("parameters, and those of embeddings", "embeddings under a tenth",
               f"{about['parameters'] / 1e6:.1f} million, {about['embeddings'] / about['parameters']:.1%}",
               about["embeddings"] < about["parameters"] / 10),
        Figure("llama.cpp's Q4_0", "", _less(peer_bytes, half)),
        Figure("FP16 itself: the layers of its image, with Zstd", "", _less(beside, half)),
    ]  # fmt: skip
    built = sorted((line for line in said if "block" in line), key=lambda line: int(line["block"]))
    for line in built:
        target = f"at least {SMALLER:.0%} below FP16" if line is built[-1] else ""
        kept = not target or line["packed"] <= (1 - SMALLER) * half
        figures += [
            Figure(f"weights in INT4, blocks of {line['block']}", "", _less(line["weights"], half)),
            Figure("the layers of its image, with Zstd", target, _less(line["packed"], half), kept),
            Figure("the same, both with Zstd", "", _less(line["packed"], beside)),
        ]
    for line in built:
        figures += _speed(f"INT4/{line['block']}", rates, peers)
    return figures


def _speed(name: str, rates: list[dict[str, float]], peers: list[float]) -> list[Figure]:
    """Of one form, against PyTorch in the number format that it is faster in, and against llama.cpp."""
    told = {form: f"{median(each[form] for each in rates):.1f}" for form in (name, "FP32", "BF16")}
    share = median(each[name] / max(each["FP32"], each["BF16"]) for each in rates)
    peer = median(each[name] for each in rates) / median(peers)
    what = f"decoding in INT4, blocks of {name.partition('/')[2]}"
    return [
        Figure(what, f"at least {FASTER}x PyTorch",
               f"{told[name]} tokens/s against {told['FP32']} in FP32, {told['BF16']} in BF16: {share:.2f}x",
               share >= FASTER),
        Figure("the same against llama.cpp in Q4_0", "", f"{told[name]} against {median(peers):.1f} tokens/s: {peer:.2f}x"),
    ]  # fmt: skip


def _less(count: int, half: int) -> str:
    return f"{mb(count)} against {mb(half)} in FP16: {1 - count / half:.1%} less"
