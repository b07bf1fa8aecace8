"""How versions are written, said to be, tagged and found; what evidence may say."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.semver import parse_semver
from pilotage.registry.rules import (
    MOST_METADATA_BYTES,
    MOST_TAGS,
    check_evidence,
    check_metadata,
    check_reported,
    check_source,
    check_tags,
    check_version,
    parse_ref,
    split_words,
)
from pilotage.registry.types import EvidenceDraft, ModelSource


def test_a_reference_names_a_model_and_perhaps_a_version() -> None:
    assert parse_ref("tiny") == ("tiny", None)
    assert parse_ref("tiny@1.0.0") == ("tiny", parse_semver("1.0.0"))


@pytest.mark.parametrize("text", ["tiny@", "tiny@1.0", "tiny@v1.0.0", "tiny@1.0.0@2"])
def test_a_reference_to_no_version_is_refused(text: str) -> None:
    with pytest.raises(PilotageError) as refused:
        parse_ref(text)

    assert (refused.value.code, refused.value.param) == ("invalid_request", "version")
    assert "for example 1.0.0" in refused.value.detail
    assert "minor for a tuned or re-trained model" in refused.value.hint


def test_a_version_is_semantic() -> None:
    assert str(check_version("1.2.3-rc.1+b")) == "1.2.3-rc.1+b"


def test_a_source_is_one_of_those_there_are() -> None:
    assert check_source("huggingface") is ModelSource.HUGGINGFACE
    with pytest.raises(PilotageError, match="no source") as refused:
        check_source("somewhere")
    assert "se_darwin, manual, huggingface, vertex_model_garden" in refused.value.hint


@given(st.lists(st.sampled_from(["routing", "eu", "team=fraud", "a/b:c"]), max_size=9))
def test_tags_are_a_set_in_order(tags: list[str]) -> None:
    assert list(check_tags(tags)) == sorted(set(tags))


@pytest.mark.parametrize(
    "tags", [[""], ["Upper"], ["-a"], ["a" * 64], ["a b"], [f"t{n}" for n in range(MOST_TAGS + 1)]]
)
def test_what_is_no_tag_is_refused(tags: list[str]) -> None:
    with pytest.raises(PilotageError) as refused:
        check_tags(tags)
    assert refused.value.param == "tags"


@pytest.mark.parametrize("value", ["x" * MOST_METADATA_BYTES, float("nan"), {1, 2}])
def test_metadata_is_json_of_a_bearable_size(value: object) -> None:
    assert check_metadata({"a": [1, None]}) == {"a": [1, None]}
    with pytest.raises(PilotageError, match="JSON"):
        check_metadata({"a": value})


@pytest.mark.parametrize(
    ("param", "wrong"),
    [
        ("kind", {"kind": "Metric"}),
        ("kind", {"kind": "metric..x"}),
        ("kind", {"kind": "k" * 65}),
        ("value", {"value": None}),
        ("value", {"subject": ""}),
        ("value", {"value": Decimal("NaN")}),
        ("value", {"high": Decimal("Infinity")}),
        ("value", {"value": Decimal("1e301")}),
        ("value", {"value": Decimal("0." + "1" * 61)}),
        ("low", {"low": Decimal("0.93")}),
        ("low", {"low": Decimal("0.8"), "high": Decimal("0.9")}),
        ("n", {"n": 0}),
        ("note", {"note": "x" * 1001}),
    ],
)
def test_evidence_that_cannot_be_is_refused(param: str, wrong: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"kind": "metric.performance", "subject": "accuracy"}
    sound |= {"value": Decimal("0.92"), "n": 10}
    check_evidence(EvidenceDraft(**sound))

    with pytest.raises(PilotageError) as refused:
        check_evidence(EvidenceDraft(**sound | wrong))

    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


@pytest.mark.parametrize("kind", ["scan.format", "card"])
def test_what_is_found_out_here_is_reported_by_nobody(kind: str) -> None:
    with pytest.raises(PilotageError) as refused:
        check_reported(EvidenceDraft(kind=kind, passed=True))
    assert (refused.value.code, refused.value.param) == ("invalid_request", "kind")
    assert "pilotage models card" in refused.value.hint or "safetensors" in refused.value.hint
    check_reported(EvidenceDraft(kind="scan.security", passed=True))


def test_evidence_may_be_a_judgement_without_a_number() -> None:
    check_evidence(EvidenceDraft(kind="scan.security", passed=True))
    check_evidence(EvidenceDraft(kind="eval", low=Decimal(1), high=Decimal(1)))


@given(st.text(max_size=60), st.text(max_size=60))
def test_words_are_found_whatever_stands_between_them(one: str, other: str) -> None:
    words = split_words(f"{one} {other}")

    assert words == split_words(f"{other} -- {one}")
    assert set(words) == {*split_words(one), *split_words(other)}
    assert all(word == word.casefold() or not word.isascii() for word in words)


def test_words_are_letters_and_digits_without_case() -> None:
    assert split_words("Fraud-Scoring v2, GRÖSSE!") == ["fraud", "grösse", "scoring", "v2"]
