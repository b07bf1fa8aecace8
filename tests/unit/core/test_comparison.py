"""How alike two answers are."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.comparison import (
    ALIKE,
    READ_LETTERS,
    USABLE,
    compare,
    keeps_schema,
    mark_answer,
    measure_similarity,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.text(), st.text())
def test_similarity_has_no_direction_and_bounds(one: str, other: str) -> None:
    found = measure_similarity(one, other)
    assert found == measure_similarity(other, one)
    assert 0 <= found <= ALIKE
    assert measure_similarity(one, one) == ALIKE


def test_similarity_falls_with_what_differs() -> None:
    said = "The invoice was paid on the third of May by bank transfer."
    near = measure_similarity(said, said.replace("third", "fifth"))
    far = measure_similarity(said, "I cannot find any payment for this invoice.")
    assert measure_similarity(said, "Qwx") == 0
    assert far < 500_000 < near < ALIKE
    assert measure_similarity(said, said.upper().replace(" ", "\n ")) == ALIKE
    assert measure_similarity(said, "") == 0


def test_similarity_is_counted_by_hand() -> None:
    # "  ab  " has the runs "  a", " ab", "ab ", "b  "; "  ac  " shares "  a" alone
    assert measure_similarity("ab", "ac") == 250_000


def test_only_the_beginning_of_long_texts_is_compared() -> None:
    begin = "a" * READ_LETTERS
    assert measure_similarity(begin + "b", begin + "c") == ALIKE
    assert not compare(begin + "b", begin + "c").is_exact


@given(JSON)
def test_json_keeps_its_own_schema(value: object) -> None:
    text = json.dumps(value)
    assert keeps_schema(text, text) is (True if isinstance(value, (dict, list)) else None)


def test_schemas_are_names_and_types() -> None:
    model = '{"total": 1, "paid": true, "lines": [{"id": "a"}], "note": null}'
    same = '```json\n{"note": "x", "paid": false, "total": 2.5, "lines": []}\n```'
    assert keeps_schema(model, same) is True
    assert keeps_schema(model, same.replace("false", "0")) is False
    assert keeps_schema(model, same.replace('"total"', '"sum"')) is False
    assert keeps_schema(model, same.replace("[]", '[{"id": 4}]')) is False
    assert keeps_schema(model, same.replace("[]", '{"id": "a"}')) is False
    assert keeps_schema(model, "It is 2.5.") is False
    assert keeps_schema("[]", "[1]") is True
    assert keeps_schema("[1]", "{}") is False
    assert keeps_schema('{"a": 1}', "[1]") is False
    assert keeps_schema("4", "5") is None
    assert keeps_schema("just words", "{}") is None


def test_too_deep_a_text_has_no_schema() -> None:
    deep = "[" * 400 + "]" * 400
    assert keeps_schema(deep, deep) is not None
    assert keeps_schema("[" * 100_000 + "]" * 100_000, "[]") is None


def test_of_a_form_that_takes_too_long_to_compare_nothing_is_known() -> None:
    model = json.dumps([[1] * 20] * 20)
    assert keeps_schema(model, json.dumps([[True]] * 40)) is False
    other = json.dumps([[1, True]] * 39 + [[True]] * 100)
    assert keeps_schema(model, other) is False
    mixed = json.dumps([[1] * 19 + [True]] * 20)
    assert keeps_schema(mixed, json.dumps([[1, True]] * 400)) is True
    assert keeps_schema(mixed, json.dumps([[True] * 20] * 100)) is None  # each 19 times in vain
    assert keeps_schema("[1]", json.dumps([1] * 4_000)) is True
    assert keeps_schema("[1]", json.dumps([1] * 20_000)) is None
    assert keeps_schema(json.dumps([1] * 20_000), "[1]") is None


def test_what_two_answers_have_in_common() -> None:
    likeness = compare('{"a": 1}', ' {"a": 2}\n')
    assert (likeness.is_exact, likeness.is_schema_kept) == (False, True)
    assert (likeness.first_letters, likeness.second_letters) == (8, 10)
    assert 0 < likeness.similarity < ALIKE
    assert compare("yes", "yes ").is_exact


def test_marks_say_what_can_be_used() -> None:
    assert mark_answer("Yes.", is_refusal=False, wants_json=False) == USABLE
    assert mark_answer(" \n", is_refusal=False, wants_json=False) == 0
    assert mark_answer("I cannot help.", is_refusal=True, wants_json=False) == 0
    assert mark_answer("Yes.", is_refusal=False, wants_json=True) == 0
    assert mark_answer('{"a": 1}', is_refusal=False, wants_json=True) == USABLE
