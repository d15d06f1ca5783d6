"""Durations, quantities, percentages and shares: what is read, what is refused, and how counts are rounded."""

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from slmops.api.base import Bound, Duration, IntOrPercent, Name, Percent, Quantity, quantity, ratio, seconds, share_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("2d", 172800),
        ("500ms", 0.5),
        ("1m1m", 120),
        ("0s", 0),
        ("1d1h1m1s1ms", 90061.001),
    ],
)
def test_a_duration_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "90", "s", "1.5h", "-1s", "1h 30m", "1w", "90s\n", "٣s", "1H"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected for example 90s"):
        seconds(text)
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2, "2"), ("500m", "0.5"), ("4Gi", str(4 * 2**30)), ("1.5Gi", str(3 * 2**29)), ("10k", "10000"), ("0", "0")],
)
def test_a_quantity_as_a_number(value: int | str, expected: str) -> None:
    assert quantity(value) == Decimal(expected)


@pytest.mark.parametrize("value", ["", "Gi", "4GB", "-1", -1, "1e3", "4 Gi", "٣", "1.", ".5"])
def test_what_is_no_quantity(value: int | str) -> None:
    with pytest.raises(ValueError, match="expected for example 2"):
        quantity(value)
    with pytest.raises(ValidationError):
        TypeAdapter(Quantity).validate_python(value)


@pytest.mark.parametrize("value", [-1, "-5%", "good", "5 %", "200 ms", "1e3", "%", "", None, [], "9" * 21])
def test_what_is_no_bound(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Bound).validate_python(value)


@pytest.mark.parametrize("value", [0, 30, "30", "92%", "99.5%", "200ms", "1.5s", "2m", "600Mi", "1k"])
def test_bounds(value: int | str) -> None:
    assert TypeAdapter(Bound).validate_python(value) == value


@pytest.mark.parametrize("value", ["3", "101%", "1000%", "%", "-1%", "10", -1, 1.5, "ten%"])
def test_what_is_neither_count_nor_share(value: object) -> None:
    """A number in quotes is a slip: it is neither the count 3 nor 3%."""
    with pytest.raises(ValidationError):
        TypeAdapter(IntOrPercent).validate_python(value)


@pytest.mark.parametrize("value", ["5", 5, "101%", "5%%", "-5%", ""])
def test_what_is_no_percentage(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Percent).validate_python(value)


@pytest.mark.parametrize("value", ["", "-a", "a-", "A", "a.b", "a_b", "a" * 41, "ä", "a\n"])
def test_what_is_no_name(value: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(value)


@pytest.mark.parametrize(
    ("value", "total", "expected"),
    [
        (3, 10, 3), (30, 10, 10), (0, 10, 0), ("0%", 10, 0), ("100%", 7, 7), ("50%", 7, 4), ("10%", 5, 1), ("1%", 1, 1),
        ("33.3%", 3, 1), ("100.9%", 3, 3), ("10%", 0, 0), ("0.01%", 5000, 1),
    ],
)  # fmt: skip
def test_a_share_of_the_nodes(value: int | str, total: int, expected: int) -> None:
    assert share_of(value, total) == expected


@settings(derandomize=True)
@given(st.decimals("0.01", 100, places=2), st.integers(1, 5000))
def test_a_share_above_zero_is_never_nobody_and_never_more_than_one_node_too_many(share: Decimal, total: int) -> None:
    count = share_of(f"{share}%", total)
    assert 1 <= count <= total
    assert count - 1 < share * total / 100 <= count


@settings(derandomize=True)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 5000))
def test_a_larger_share_never_means_fewer_nodes(one: int, other: int, total: int) -> None:
    low, high = sorted((one % 10001, other % 10001))
    assert share_of(f"{low / 100:.2f}%", total) <= share_of(f"{high / 100:.2f}%", total)


def test_a_percentage_as_a_ratio() -> None:
    assert math.isclose(ratio("5%"), 0.05)
    assert math.isclose(ratio("99.5%"), 0.995)
