"""Pools whose variant is chosen on the nodes (variant Auto), under everything that happens to a fleet.

As in test_rollout, with other promises: what is promoted on a class is what was chosen for it, and that was good there.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.state import LABEL_ROLE, Manifest
from tests.properties.test_rollout import DOUBTFUL, POOLS, STEPS, WAVES, Fleet, at_rest
from tests.unit.copies import fresh
from tests.unit.edgemachines import named

VARIANTS = (
    ("good-1", "broad-1"), ("broad-2", "good-2"), ("lame-1", "good-3"), ("slow-1", "lame-2"), ("noisy-1", "good-1"),
    ("silent-1", "noisy-2"), ("broken-1", "good-4", "broad-4"), ("crashing-1", "lame-3", "good-5"),
)  # fmt: skip
"""What a QuantizedModel has, one after the other."""


class Choosing(Fleet):
    """The steps, where each hardware class takes what is best for it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.world.change(model={"quantizedModel": {"name": "q"}}, pools=self.placed(self.spec["pools"]))
        self.spec = fresh(self.world.parent["spec"])

    def deploy(self, number: int) -> None:
        self.world.quantize(*VARIANTS[number % len(VARIANTS)])

    def placed(self, pools: list[Manifest]) -> list[Manifest]:
        return [pool | {"variant": "Auto"} for pool in pools]

    def in_spec(self, pool: str) -> str:
        return pool.partition(".")[0]

    def check_starts(self, before: Any) -> None:
        """Nothing begins under a pause, and a variant is measured where no other one is."""
        new = [self.world.objects[key]["metadata"]["labels"] for key in set(self.world.objects) - before.keys]
        assert not self.spec.get("paused") or not [labels for labels in new if labels[LABEL_ROLE] in ("pull", "choose")]
        measured = [job["metadata"]["annotations"]["slmops.dev/node"] for job in self.world.unfinished("choose")]
        assert len(measured) == len(set(measured)), "two variants on one node at once"

    def check_promotion(self, before: Any) -> None:
        """Each class that takes part has what keeps the gates there."""
        status = self.world.parent["status"]
        stable = status.get("stable") or {}
        if not stable or stable["revision"] in before.stable or stable["revision"] in before.known:
            return
        for pool, image in stable["images"].items():
            hardware = pool.partition(".")[2]
            failed = (stable.get("failed") or {}).get(pool, {})
            if hardware and hardware not in failed and stable["revision"] not in self.in_full:
                model = named(image)
                assert model.startswith(("good", "broad")) or (model.startswith("lame") and hardware == "big"), image

    def end(self) -> None:
        """Everybody comes back; where the rollout came to its end, each node serves what was chosen for its class."""
        self.come_back()
        at_rest(self.world)
        world, status = self.world, self.world.status
        if not any(world.members(pool["name"]) for pool in self.spec["pools"]):
            return
        chosen = {(c["pool"], c["hardware"]): c for c in status["choices"]}
        present = {
            (pool["name"], self._hardware(name)) for pool in self.spec["pools"] for name in world.members(pool["name"])
        }
        assert present <= set(chosen), "each class was measured"
        for choice in (chosen[key] for key in present):
            assert set(choice.get("speeds", {})) | set(choice.get("refused", {})) == set(self._variants()), status
            assert choice["variant"] in choice.get("speeds", {}) or not choice.get("speeds"), "one that keeps the gates"
        if status["phase"] == "Ready":
            for pool, hardware in present:
                for name in world.members(pool):
                    if self._hardware(name) == hardware:
                        assert world.serving(name) == [chosen[pool, hardware]["variant"]], name
        else:
            told = " ".join(condition["message"] for condition in status["conditions"])
            worse = "maxRegression 10% against" in told  # the best of them is not as good as what is there
            beside = map(named, (status.get("stable") or {}).get("images", {}).values())
            # Nothing can be compared with these.
            doubtful = status["phase"] == "Paused" and any(model.startswith(DOUBTFUL) for model in beside)
            assert worse or doubtful or any(not choice.get("speeds") for choice in chosen.values()), status

    def _variants(self) -> list[str]:
        return [v["name"] for v in self.world.references["QuantizedModel", "q"]["spec"]["variants"]]


@pytest.mark.parametrize(
    ("scope", "cut_over"),
    [("All", "DownloadThenStop"), ("HardwareClass", "DownloadThenStop"), ("HardwareClass", "StopThenDownload")],
)
@pytest.mark.parametrize("waves", WAVES, ids=len)
@settings(derandomize=True, max_examples=3)
@given(
    pools=st.sampled_from([("farms",), POOLS]), size=st.integers(2, 5), running=st.booleans(), first=st.integers(0, 7),
    steps=STEPS,
)  # fmt: skip
def test_whatever_happens_each_class_ends_with_what_was_best_on_it(
    waves: list[Manifest], scope: str, cut_over: str, pools: tuple[str, ...], size: int, running: bool, first: int,
    steps: list[tuple[str, int]],
) -> None:  # fmt: skip
    fleet = Choosing(pools, waves, 1, size, scope, cut_over)
    fleet.step("deploy", first)
    if running:
        fleet.world.settle()
    for actor, number in steps:
        fleet.step(actor, number)
    fleet.end()
