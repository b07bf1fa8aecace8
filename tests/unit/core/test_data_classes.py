"""What each class of data forbids."""

from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.data_classes import (
    CONFIDENTIAL,
    DATA_CLASSES,
    INTERNAL,
    PUBLIC,
    RESTRICTED,
    get_rule,
    may_answer,
    may_copy,
)

CLASSES = st.sampled_from(list(DATA_CLASSES))
ORDER = [PUBLIC, INTERNAL, CONFIDENTIAL, RESTRICTED]


@given(CLASSES, CLASSES)
def test_an_upstream_sees_what_it_is_accepted_for_and_no_more(data: str, accepts: str) -> None:
    assert may_answer(data, accepts) is (ORDER.index(data) <= ORDER.index(accepts))


@given(st.text(), st.text(min_size=1))
def test_what_nobody_knows_is_restricted(data: str, accepts: str) -> None:
    if data not in ORDER:
        assert may_answer(data, accepts) is (accepts == RESTRICTED)
        assert get_rule(data).name == RESTRICTED
    if accepts not in ORDER:
        assert not may_answer(data, accepts)


@given(st.text() | CLASSES)
def test_own_engines_see_everything(data: str) -> None:
    assert may_answer(data, "")
    assert may_copy(data, "")


def test_copies_leave_the_house_for_the_open_classes_only() -> None:
    assert [may_copy(data, CONFIDENTIAL) for data in ORDER] == [True, True, False, False]
    assert [may_copy(data, RESTRICTED) for data in ORDER] == [True] * 4


def test_whatever_one_class_forbids_the_next_one_forbids_too() -> None:
    for flag in ("leaves_house", "is_copied_out", "is_logged"):
        allowed = [getattr(DATA_CLASSES[name], flag) for name in ORDER]
        assert allowed == sorted(allowed, reverse=True)
    assert list(DATA_CLASSES) == ORDER
