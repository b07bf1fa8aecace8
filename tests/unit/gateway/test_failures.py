"""Every error of the catalogue and every way a connection fails is judged, and judged alike."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_calls import make_arm
from pilotage.core.errors import CATALOGUE, PilotageError
from pilotage.gateway.routing.failures import (
    Blame,
    Failure,
    as_error,
    blame,
    choose_error,
    is_targets_fault,
    may_repeat,
    may_use,
)
from pilotage.gateway.transport.connection import FailureKind, UpstreamFailure

KINDS = get_args(FailureKind)
FAILURES = st.one_of(
    st.sampled_from(sorted(CATALOGUE)).map(PilotageError),
    st.builds(
        UpstreamFailure, st.sampled_from(KINDS), sent=st.booleans(), got_headers=st.booleans()
    ),
)
STATUSES = st.sampled_from([0, 200, 301, 400, 401, 404, 429, 500, 503])

GOES_ON = {
    "upstream_unreachable",
    "upstream_error",
    "upstream_overloaded",
    "upstream_quota",
    "upstream_cold",
    "upstream_auth",
    "upstream_stall",
    "upstream_cut",
    "upstream_invalid",
    "breaker_open",
    "no_replica",
    "egress_denied",
    "unavailable",
    "unsupported",
}


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_what_another_target_may_do_better_goes_on_and_nothing_else(code: str) -> None:
    assert may_use(make_arm("dep_b"), make_arm("dep_a"), code) == (code in GOES_ON)


def test_a_prompt_too_long_goes_to_a_larger_context_only() -> None:
    failed = make_arm(context_tokens=4096)
    for tokens, expected in ((2048, False), (4096, False), (8192, True)):
        other = make_arm("dep_b", context_tokens=tokens)
        assert may_use(other, failed, "context_length_exceeded") is expected


@pytest.mark.parametrize(
    ("failure", "status", "expected"),
    [
        *((UpstreamFailure(kind, sent=True), 0, kind in {
            "connect", "connect_timeout", "reset_before_headers"}) for kind in KINDS),
        (PilotageError("upstream_error"), 500, True),
        (PilotageError("upstream_error"), 503, True),
        (PilotageError("upstream_overloaded"), 429, True),
        (PilotageError("upstream_error"), 404, False),
        (PilotageError("upstream_error"), 200, False),
        (PilotageError("upstream_quota"), 429, False),
        (PilotageError("upstream_cold"), 503, False),
        (PilotageError("upstream_stall"), 0, False),
        (PilotageError("invalid_request"), 400, False),
    ],
)  # fmt: skip
def test_the_same_target_is_asked_again_only_where_that_is_safe(
    failure: Failure, status: int, expected: bool
) -> None:
    assert may_repeat(failure, status=status) is expected


@pytest.mark.parametrize(
    ("failure", "status", "expected"),
    [
        (UpstreamFailure("connect", sent=False), 0, Blame.BROKEN),
        (UpstreamFailure("stall", sent=True), 0, Blame.BROKEN),
        (UpstreamFailure("busy", sent=False), 0, Blame.UNKNOWN),
        (PilotageError("upstream_error"), 500, Blame.BROKEN),
        (PilotageError("upstream_error"), 200, Blame.BROKEN),
        (PilotageError("upstream_error"), 404, Blame.FINE),  # one deployment's wrong model name
        (PilotageError("upstream_auth"), 401, Blame.BROKEN),
        (PilotageError("upstream_auth"), 403, Blame.FINE),
        (PilotageError("upstream_overloaded"), 429, Blame.RESTING),
        (PilotageError("upstream_quota"), 429, Blame.FINE),
        (PilotageError("upstream_quota"), 402, Blame.FINE),
        (PilotageError("invalid_request"), 400, Blame.FINE),
        (PilotageError("context_length_exceeded"), 400, Blame.FINE),
        (PilotageError("no_replica"), 0, Blame.UNKNOWN),
        (PilotageError("egress_denied"), 0, Blame.UNKNOWN),
        (PilotageError("deadline"), 0, Blame.UNKNOWN),
    ],
)
def test_only_a_broken_target_is_blamed(failure: Failure, status: int, expected: Blame) -> None:
    assert blame(failure, status=status) is expected


@given(FAILURES, STATUSES)
def test_judgements_agree(failure: Failure, status: int) -> None:
    error = as_error(failure)
    if blame(failure, status=status) in (Blame.BROKEN, Blame.RESTING):
        assert is_targets_fault(error.code)
    if may_repeat(failure, status=status):
        assert is_targets_fault(error.code)
        assert error.spec.is_retryable


CODES = st.sampled_from(sorted(GOES_ON | {"invalid_request", "context_length_exceeded"}))


@given(st.lists(CODES, min_size=1, max_size=5))
def test_the_client_hears_of_its_request_or_else_of_the_last(codes: list[str]) -> None:
    told = choose_error([PilotageError(code, f"It was {code}.") for code in codes])
    about_request = [code for code in codes if not is_targets_fault(code)]
    assert told.code == (about_request[0] if about_request else codes[-1])
    assert told.detail.startswith(f"It was {told.code}.")
    assert (f"{len(codes)} targets were tried." in told.detail) == (len(codes) > 1)


def test_what_else_an_error_says_stays() -> None:
    error = PilotageError("upstream_overloaded", "Busy", hint="Wait.", param="n", retry_after_s=3)
    told = choose_error([PilotageError("no_replica"), error])
    assert told.detail == "Busy. 2 targets were tried."
    assert (told.hint, told.param, told.retry_after_s) == ("Wait.", "n", 3)
