"""From an HTTP answer to the error that a pass acts on: worth a retry, up to a person, or somebody else's object."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.cluster.errors import LONGEST_WAIT, ClusterError, InternalError, Invalid, Unavailable, from_status

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("message", "reason", "details")


@given(
    st.sampled_from([302, 400, 403, 404, 409, 410, 418, 422, 429, 503]),
    st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)),
    st.none() | st.text(max_size=10),
    st.none() | st.dictionaries(st.sampled_from(["causes", "retryAfterSeconds"]), JSON),
)
def test_whatever_stands_in_an_answer_it_becomes_an_error_with_a_text(
    code: int, body: dict[str, Any], header: str | None, details: dict[str, Any] | None
) -> None:
    """Proxies, aggregated servers and admission webhooks write these bodies too."""
    error = from_status(code, body | ({"details": details} if details is not None else {}), header, "get jobs")
    assert isinstance(error, ClusterError)
    assert isinstance(error.message, str)
    assert error.message
    assert isinstance(error.reason, str)
    assert error.status == code
    if isinstance(error, Unavailable):
        assert error.retry_after is None or 0 < error.retry_after <= LONGEST_WAIT
    if isinstance(error, Invalid):
        assert all(isinstance(part, str) for cause in error.causes for part in cause)


WEBHOOK = 'Internal error occurred: failed calling webhook "jobs.example": failed to call webhook: Post "https://jobs.hooks.svc"'


@pytest.mark.parametrize(
    ("body", "ours_alone"),
    [
        ({"reason": "InternalError", "message": f"{WEBHOOK}: connect: connection refused"}, True),
        ({"reason": "InternalError", "message": f"{WEBHOOK}: context deadline exceeded"}, True),
        ({"reason": "InternalError", "message": "Internal error occurred: resource quota evaluation timed out"}, True),
        ({"message": f"{WEBHOOK}: no endpoints available for service"}, True),
        ({"message": "etcdserver: leader changed"}, False),
        ({"message": "rpc error: code = Unavailable desc = transport is closing"}, False),
        ({}, False),
    ],
)
def test_what_the_server_fails_over_is_told_from_a_server_that_fails(body: dict[str, Any], ours_alone: bool) -> None:
    assert type(from_status(500, body, None, "create jobs")) is (InternalError if ours_alone else Unavailable)


def test_an_answer_without_words_says_what_was_asked() -> None:
    assert str(from_status(503, {}, None, "list jobs")) == "list jobs: HTTP 503"


@pytest.mark.parametrize(
    ("code", "worth_a_retry"),
    [(302, True), (400, False), (401, True), (403, False), (404, False), (408, True), (409, False), (410, False),
     (413, False), (422, False), (429, True), (500, True), (503, True), (504, True)],
)  # fmt: skip
def test_only_what_may_pass_by_itself_is_worth_a_retry(code: int, worth_a_retry: bool) -> None:
    assert isinstance(from_status(code, {}, None, "x"), Unavailable) is worth_a_retry
