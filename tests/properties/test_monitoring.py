"""Counts add up in any order, percentiles lie where they can, and no order of events leads to two retrains too soon."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.contract import BINS, SECOND_EDGES, Served
from slmops.monitoring.counts import ADDED, index, quantile, together
from tests.unit.monitoring.worlds import OTHER, RETRAIN, World, asked, served

counts = st.integers(0, 1000)
histograms = st.dictionaries(st.integers(0, BINS["request_seconds"] - 1), counts, max_size=5).map(
    lambda found: tuple(found.get(place, 0) for place in range(BINS["request_seconds"]))
)
words = st.builds(
    lambda answers, content, times, errors, ran: served(
        answers, range(*sorted(content)), request_seconds=times, errors=errors, ran_seconds=float(ran)
    ),
    counts, st.tuples(st.integers(0, 255), st.integers(0, 255)), histograms, counts, counts,
)  # fmt: skip


@given(st.lists(words, max_size=6), st.randoms(use_true_random=False))
def test_a_sum_is_the_same_in_any_order_and_by_parts(parts: list[Served], draw) -> None:  # type: ignore[no-untyped-def]
    whole = together(parts)
    shuffled = list(parts)
    draw.shuffle(shuffled)
    cut = draw.randint(0, len(parts))
    assert together(shuffled) == whole == together([together(parts[:cut]), together(parts[cut:])])
    assert {name: getattr(whole, name) for name in ADDED} == {
        name: sum(getattr(p, name) for p in parts) for name in ADDED
    }


@given(histograms, st.floats(0.01, 1), st.floats(0.01, 1))
def test_percentiles_rise_and_lie_in_the_bin_that_they_fall_into(
    times: tuple[int, ...], one: float, two: float
) -> None:
    low, high = (quantile(SECOND_EDGES, times, share) for share in sorted((one, two)))
    assert (low is None) == (high is None) == (sum(times) == 0)
    if low is None or high is None:
        return
    assert low <= high
    below = sum(count for edge, count in zip(SECOND_EDGES, times, strict=False) if edge < low)
    assert below <= min(one, two) * sum(times) + 1e-6
    assert 0 <= low <= SECOND_EDGES[-1]


@given(histograms, histograms)
def test_the_index_is_never_below_zero_and_the_same_from_both_sides(one: tuple[int, ...], two: tuple[int, ...]) -> None:
    assert index(one, two) >= 0
    assert abs(index(one, two) - index(two, one)) < 1e-9
    assert index(one, one) == 0


steps = st.lists(
    st.tuples(
        st.sampled_from(["usual", "other", "silent", "few", "runs", "ends", "fails", "promote", "lost", "restart",
                         "replaced", "deleted", "made"]),
        st.sampled_from([1.0, 60.0, 3600.0, 7 * 3600.0]),
    ),
    max_size=25,
)  # fmt: skip
HOURS = 24
SAID = {"usual": served(200), "other": asked(200, OTHER), "few": asked(3, OTHER)}


@given(steps)
@settings(max_examples=60, deadline=None)
def test_no_order_of_events_leads_to_two_retrains_too_soon_or_for_one_breach(events: list[tuple[str, float]]) -> None:
    world = World(retrain=RETRAIN)
    world.settled()
    cleared = promoted = True
    for number, (event, after) in enumerate(events):
        before = len(world.runs)
        _happens(world, event, number)
        world.operate(after)
        if len(world.runs) > before:
            assert cleared or promoted, "one for each breach"
            assert event not in ("usual", "few")
            cleared = promoted = False
        cleared = cleared or (event == "usual")
        promoted = promoted or event == "promote"
    for (first, _), (second, _) in zip(world.runs, world.runs[1:], strict=False):
        assert second - first >= timedelta(hours=HOURS)


def _happens(world: World, event: str, number: int) -> None:
    """Things that people, machines and other programs do."""
    match event:
        case "usual" | "other" | "few":
            world.tell(SAID[event], SAID["usual"])
        case "silent" | "restart":
            world.tell(None)
        case "runs" if world.fine_tune:
            world.runs_again()
        case "ends" if world.fine_tune:
            world.ends()
        case "fails" if world.fine_tune:
            world.ends("False", "GateFailed")
        case "promote":
            world.promote(f"model-{number}")
        case "lost" if world.fine_tune:  # a backup is restored: what the FineTune remembers is all there is
            stable = world.body["status"]["stable"]
            world.body["status"] = {"stable": stable}
        case "replaced" if world.fine_tune:  # git has no annotation, and a tool replaces the object
            world.seen()
            world.fine_tune["metadata"].pop("annotations", None)
        case "deleted":
            world.fine_tune = None
        case "made" if world.fine_tune is None:
            world.fine_tune = World().fine_tune
