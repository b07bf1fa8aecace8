"""Residency rules: what they may say, and what they allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.regions import (
    LOCAL,
    MOST_REGIONS,
    NOT_LOCAL,
    check_location,
    check_regions,
    is_within,
    list_allowed,
)

NAMES = st.sampled_from(["eu", "eu-west4", "us", "local", "!eu-west4", "!us", "!local"])


@pytest.mark.parametrize(
    ("regions", "location", "may"),
    [
        ([], "anywhere", True),
        ([], "", True),
        (["eu"], "eu", True),
        (["eu"], "eu-west4", True),
        (["eu"], "europe", False),
        (["eu"], "us", False),
        (["eu"], "", False),
        (["eu"], LOCAL, True),
        (["eu", NOT_LOCAL], LOCAL, False),
        (["eu", NOT_LOCAL], "eu", True),
        (["eu", "!eu-west4"], "eu-west4", False),
        (["eu", "!eu-west4"], "eu-west4-a", False),
        (["eu-west4"], "eu", False),
    ],
)
def test_what_regions_allow(regions: list[str], location: str, *, may: bool) -> None:
    assert is_within(location, list_allowed(regions)) is may


@given(st.lists(NAMES, max_size=5), st.sampled_from(["eu", "eu-west4", "us", LOCAL, ""]))
def test_forbidding_never_allows_more(regions: list[str], location: str) -> None:
    if not any(not name.startswith("!") for name in regions):
        return
    allowed = list_allowed(regions)

    for name in ("!eu", "!us", NOT_LOCAL):
        stricter = list_allowed([*regions, name])
        assert not is_within(location, stricter) or is_within(location, allowed)
    assert list_allowed(list(reversed(regions))) == allowed


def test_regions_are_kept_in_order_and_each_once() -> None:
    assert check_regions(["us", "eu", "us", "!eu-west4"]) == ("us", "eu", "!eu-west4")
    assert check_regions([]) == ()


@pytest.mark.parametrize(
    ("regions", "problem"),
    [
        (["Europe"], "'Europe' is no region"),
        (["eu", ""], "'' is no region"),
        (["eu", "!"], "'' is no region"),
        (["eu", "!!us"], "'!us' is no region"),
        ([NOT_LOCAL], "!local only forbids"),
        (["!us", NOT_LOCAL], "!us, !local only forbids"),
        ([f"r{n}" for n in range(MOST_REGIONS + 1)], "at most"),
    ],
)
def test_what_is_no_list_of_regions_is_refused(regions: list[str], problem: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_regions(regions)

    assert problem in refused.value.detail
    assert (refused.value.code, refused.value.param) == ("invalid_request", "regions")


def test_a_location_is_named_like_a_region() -> None:
    assert check_location("europe-west4") == "europe-west4"
    with pytest.raises(PilotageError, match="is no region"):
        check_location("!eu")
