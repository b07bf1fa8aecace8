"""Names that people give to things."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_alias, check_name

INNER = string.ascii_lowercase + string.digits
NAMES = st.text(INNER + "._-", min_size=1, max_size=63).filter(
    lambda text: text[0] in INNER and text[-1] in INNER
)


@given(NAMES)
def test_a_name_is_returned_as_it_is(name: str) -> None:
    assert check_name(name) == name
    assert check_alias(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "a" * 64, "-a", "a-", ".", "a b", "a/b", "a\n", "\u00e4", "a~b", "a\x00b"],
)
def test_what_is_no_name_is_refused_with_the_form_of_one(name: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_name(name, "tenant")

    assert (refused.value.code, refused.value.param) == ("invalid_request", "tenant")
    assert repr(name) in refused.value.detail
    assert "1 to 63" in refused.value.hint


@pytest.mark.parametrize("name", ["gpt-4o", "Team/chat:small", "a", "a" * 128, "meta.Llama_3/8B"])
def test_an_alias_may_have_capitals_slashes_and_colons(name: str) -> None:
    assert check_alias(name) == name


@pytest.mark.parametrize("name", ["", "/a", "a/", "a" * 129, "a b", "a\n", "a@1.0.0", "\u00e4"])
def test_what_is_no_alias_is_refused_with_the_form_of_one(name: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_alias(name)

    assert (refused.value.code, refused.value.param) == ("invalid_request", "name")
    assert "1 to 128" in refused.value.hint
