"""Semantic versions: the order of section 11, the strictness of the grammar."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.semver import SemVer, parse_semver

ORDERED = [
    "0.0.0",
    "0.0.1",
    "0.1.0",
    "1.0.0-alpha",  # from here to the release: the example of section 11
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
    "10.0.0",
]
VALID = [
    "0.0.4",
    "1.1.2-prerelease+meta",
    "1.1.2+meta",
    "1.0.0-alpha.0valid",
    "1.0.0-0A.is.legal",
    "1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay",
    "2.0.1-alpha.1227",
    "1.2.3----RC-SNAPSHOT.12.9.1--.12+788",
    "1.0.0+0.build.1-rc.10000aaa-kk-0.1",
    "99999999999999999999999.999999999999999999.99999999999999999",
    "1.0.0--",
    "1.0.0+001",
]
INVALID = [
    "",
    "1",
    "1.2",
    "1.2.3.4",
    "v1.2.3",
    "01.2.3",
    "1.02.3",
    "1.2.03",
    "1.2.3-",
    "1.2.3-01",
    "1.2.3-0123.0123",
    "1.2.3-a..b",
    "1.2.3+",
    "1.2.3+a+b",
    "1.2.3-a_b",
    "-1.0.0",
    "+justmeta",
    "1.2-SNAPSHOT",
    "1.2.3 ",
    "1.2.3\n",
    "alpha",
    "1.0.\N{ARABIC-INDIC DIGIT ONE}",
]
NUMBERS = st.integers(0, 12)
IDENTIFIERS = st.one_of(
    st.integers(0, 12).map(str), st.from_regex(r"\A[0-9]{0,2}[a-zA-Z-][0-9a-zA-Z-]{0,2}\Z")
)
VERSIONS = st.builds(
    SemVer,
    major=NUMBERS,
    minor=NUMBERS,
    patch=NUMBERS,
    prerelease=st.lists(IDENTIFIERS, max_size=3).map(tuple),
    build=st.sampled_from(["", "b", "b.1"]),
)


def test_precedence_is_that_of_section_11() -> None:
    parsed = [parse_semver(text) for text in ORDERED]

    assert sorted(parsed, reverse=True)[::-1] == parsed
    for lower, higher in pairwise(parsed):
        assert lower < higher
        assert not higher < lower
        assert lower != higher


@pytest.mark.parametrize("text", VALID)
def test_what_the_grammar_allows_is_read_and_written_back(text: str) -> None:
    assert str(parse_semver(text)) == text


@pytest.mark.parametrize("text", INVALID)
def test_what_the_grammar_forbids_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a semantic version"):
        parse_semver(text)


def test_numbers_beyond_what_a_number_is_here_are_refused() -> None:
    with pytest.raises(ValueError, match="not a semantic version"):
        parse_semver("9" * 5000 + ".0.0")


@given(VERSIONS)
def test_a_version_is_read_back(version: SemVer) -> None:
    again = parse_semver(str(version))

    assert again == version
    assert again.build == version.build
    assert hash(again) == hash(version)


@given(VERSIONS, VERSIONS)
def test_of_two_versions_one_is_lower_or_both_are_equal(one: SemVer, other: SemVer) -> None:
    assert [one < other, one == other, one > other].count(True) == 1
    assert (one <= other) == (not other < one)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_is_transitive(one: SemVer, two: SemVer, three: SemVer) -> None:
    low, middle, high = sorted([one, two, three])

    assert low <= middle <= high
    assert low <= high


LARGE = st.integers(0, 10**40)


@given(
    st.builds(SemVer, major=LARGE, minor=NUMBERS, patch=LARGE)
    | VERSIONS
    | st.sampled_from([*map(parse_semver, ORDERED), parse_semver("1.0.0-alpha-")]),
    VERSIONS | st.builds(SemVer, major=LARGE, minor=NUMBERS, patch=LARGE),
)
def test_the_key_of_text_has_the_order_of_section_11(one: SemVer, other: SemVer) -> None:
    keys = one.text_key().encode(), other.text_key().encode()

    assert (keys[0] < keys[1]) == (one < other)
    assert (keys[0] == keys[1]) == (one == other)


def test_the_keys_of_the_example_are_in_its_order() -> None:
    keys = [parse_semver(text).text_key() for text in ORDERED]

    assert sorted(keys) == keys
    assert parse_semver("1.10.0-rc.2").text_key() == "0110210010-1rc!0012"


@given(VERSIONS)
def test_build_metadata_makes_no_other_version(version: SemVer) -> None:
    built = parse_semver(f"{str(version).partition('+')[0]}+20130313144700")

    assert built == version
    assert len({built, version}) == 1


def test_a_version_is_not_its_text() -> None:
    assert parse_semver("1.0.0") != "1.0.0"
