"""Comparing two versions: the algebra of differences, what is missing, and the sentence."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pilotage.registry.comparison import Difference, Verdict, compare, recommend
from pilotage.registry.metrics import KIND_COST, KIND_PERFORMANCE, Direction
from pilotage.registry.types import Evidence

NAMES = ("accuracy", "latency_p95", "error_rate", "replica_count")
NOT_COMPARABLE = "version_b is not comparable with version_a: no metric is known of both"
NUMBERS = st.decimals(-1000, 1000, places=3)
NEAR: dict[str, Any] = {"low": Decimal("0.8"), "high": Decimal(1)}
MIRRORED = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}


def measured(name: str, value: object, kind: str = KIND_PERFORMANCE, **more: Any) -> Evidence:  # noqa: ANN401
    return Evidence(
        id="ev",
        project_id="prj",
        version_id="ver",
        created_at_us=1,
        created_by="usr",
        kind=kind,
        subject=name,
        value=None if value is None else Decimal(str(value)),
        **more,
    )


@st.composite
def measurements(draw: st.DrawFn) -> list[Evidence]:
    found = []
    for name in draw(st.sets(st.sampled_from(NAMES))):
        value = draw(NUMBERS)
        wide = draw(st.none() | st.decimals(0, 50, places=2))
        around: dict[str, Any] = (
            {} if wide is None else {"low": value - wide, "high": value + 2 * wide}
        )
        found.append(measured(name, value, **around))
    return found


def one(a: Evidence | None, b: Evidence | None, **given_directions: Direction) -> Difference:
    kind = (a or b or measured("x", 1)).kind
    (found,) = compare([a] if a else [], [b] if b else [], kind, given_directions)
    return found


@given(measurements(), measurements())
def test_swapping_the_versions_turns_every_sign(a: list[Evidence], b: list[Evidence]) -> None:
    there = compare(a, b, KIND_PERFORMANCE)
    back = compare(b, a, KIND_PERFORMANCE)

    assert [item.name for item in there] == [item.name for item in back]
    for item, turned in zip(there, back, strict=True):
        assert (item.a, item.b) == (turned.b, turned.a)
        assert turned.verdict is MIRRORED.get(item.verdict, item.verdict)
        if item.difference is not None and turned.difference is not None:
            assert item.difference == -turned.difference
        assert (item.difference is None) == (turned.difference is None)
        if item.low is not None and turned.high is not None:
            assert abs(item.low + turned.high) < Decimal("1e-20")


@given(measurements(), measurements())
def test_what_one_version_lacks_is_missing_and_never_zero(
    a: list[Evidence], b: list[Evidence]
) -> None:
    both = {item.subject for item in a} & {item.subject for item in b}
    for item in compare(a, b, KIND_PERFORMANCE):
        is_missing = item.name not in both
        assert (item.verdict is Verdict.MISSING) == is_missing
        assert (item.difference is None) == is_missing
        if is_missing:
            assert (item.a is None) != (item.b is None)
            assert (item.percent, item.points, item.low, item.high) == (None, None, None, None)


@given(NUMBERS, NUMBERS, st.integers(1, 1000))
def test_a_share_of_change_has_no_unit(a: Decimal, b: Decimal, factor: int) -> None:
    assume(a != 0)
    plain = one(measured("latency_p95", a), measured("latency_p95", b))
    scaled = one(measured("latency_p95", a * factor), measured("latency_p95", b * factor))

    assert plain.percent is not None
    assert scaled.percent is not None
    assert abs(plain.percent - scaled.percent) < Decimal("1e-15")
    assert plain.verdict is scaled.verdict


@given(NUMBERS, NUMBERS, st.decimals(0, 20, places=2), st.decimals(0, 20, places=2))
def test_a_wider_interval_never_makes_a_difference_of_noise(
    a: Decimal, b: Decimal, narrow: Decimal, more: Decimal
) -> None:
    def within(half: Decimal) -> Difference:
        around = [
            measured("accuracy", value, low=value - half, high=value + half) for value in (a, b)
        ]
        return one(*around)

    if within(narrow).verdict is Verdict.NOISE:
        assert within(narrow + more).verdict is Verdict.NOISE
    assert within(Decimal(0)).verdict is not Verdict.NOISE


def test_the_interval_of_a_difference_is_that_of_zou_and_donner() -> None:
    a = measured("accuracy", "0.50", low="0.43", high="0.57")
    b = measured("accuracy", "0.60", low="0.51", high="0.66")
    a, b = (
        measured("accuracy", item.value, low=Decimal(str(item.low)), high=Decimal(str(item.high)))
        for item in (a, b)
    )
    found = one(a, b)

    assert found.low is not None
    assert found.high is not None
    assert float(found.low) == pytest.approx(0.10 - (0.09**2 + 0.07**2) ** 0.5)
    assert float(found.high) == pytest.approx(0.10 + (0.06**2 + 0.07**2) ** 0.5)
    assert found.verdict is Verdict.NOISE


def test_the_example_of_everybody() -> None:
    a = [measured("accuracy", "0.92"), measured("latency_p95", "234.5", unit="ms")]
    b = [measured("accuracy", "0.966"), measured("latency_p95", "175.9", unit="ms")]
    found = compare(a, b, KIND_PERFORMANCE)

    assert recommend(found) == "version_b is 5% more accurate and 25% faster"
    assert (found[0].percent, found[0].points) == (Decimal(5), Decimal("4.6"))
    assert found[1].points is None
    assert (
        recommend(compare(b, a, KIND_PERFORMANCE))
        == "version_b is 4.8% less accurate and 33% slower"
    )


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        ([], [], NOT_COMPARABLE),
        (
            [measured("accuracy", "0.9")],
            [],
            f"{NOT_COMPARABLE}; missing for version_b: accuracy",
        ),
        (
            [measured("accuracy", "0.9"), measured("latency_p95", 100)],
            [measured("accuracy", "0.9"), measured("latency_p95", 80)],
            "version_b is 20% faster; equal: accuracy",
        ),
        (
            [measured("accuracy", "0.9", **NEAR), measured("latency_p95", 100)],
            [measured("accuracy", "0.95", **NEAR), measured("latency_p95", 125)],
            "version_b is 25% slower; within noise: accuracy",
        ),
        (
            [measured("accuracy", "0.9")],
            [measured("accuracy", "0.9")],
            "version_b is not measurably different from version_a in accuracy",
        ),
        (
            [measured("accuracy", "0.9"), measured("latency_p95", 100)],
            [measured("accuracy", "0.99"), measured("latency_p95", "104.26")],
            "version_b is 10% more accurate, but 4.3% slower",
        ),
        (
            [measured("latency_p50", 100), measured("latency_p99", 100)],
            [measured("latency_p50", 90), measured("latency_p99", 120)],
            "version_b is 10% faster (latency_p50), but 20% slower (latency_p99)",
        ),
        (
            [measured("latency_p50", 100), measured("latency_p95", 100)],
            [measured("latency_p50", 90), measured("latency_p95", 70)],
            "version_b is 30% faster",
        ),
        (
            [measured("error_rate", 0), measured("f1", "0.5")],
            [measured("error_rate", "0.01"), measured("f1", "0.5001")],
            "version_b is less than 0.1% better in f1, but worse in error_rate",
        ),
        (
            [measured("accuracy", "0.9", unit="%"), measured("x", 1, unit="kg")],
            [measured("x", 1, unit="m"), measured("accuracy", "0.9", unit="ratio")],
            "version_b is 9900% more accurate; units differ: x",
        ),
        (
            [measured("accuracy", "0.5", dataset_version_id="dsv_1")],
            [measured("accuracy", "0.6", dataset_version_id="dsv_2")],
            "version_b is 20% more accurate; measured on different data: accuracy",
        ),
        (
            [measured(f"m{n}", 1) for n in range(7)],
            [],
            f"{NOT_COMPARABLE}; missing for version_b: m0, m1, m2, m3 and 3 more",
        ),
    ],
)
def test_the_sentence_says_what_is_known(
    a: list[Evidence], b: list[Evidence], sentence: str
) -> None:
    assert recommend(compare(a, b, KIND_PERFORMANCE)) == sentence


def test_costs_are_cheaper_or_more_expensive() -> None:
    a = measured("cost_per_1m_tokens", "0.40", KIND_COST, unit="USD")
    b = measured("cost_per_1m_tokens", "0.35", KIND_COST, unit="USD")

    assert recommend([one(a, b)]) == "version_b is 13% cheaper"
    assert recommend([one(b, a)]) == "version_b is 14% more expensive"


def test_times_are_compared_whatever_their_unit() -> None:
    found = one(
        measured("latency_p95", "234.5", unit="ms"),
        measured("latency_p95", "0.1759", unit="s", low=Decimal("0.17"), high=Decimal("0.18")),
    )

    assert (found.b, found.unit, found.verdict) == (Decimal("175.9"), "ms", Verdict.BETTER)


def test_a_direction_that_nobody_knows_is_no_verdict_until_it_is_given() -> None:
    a, b = measured("replica_count", 2), measured("replica_count", 3)

    assert one(a, b).verdict is Verdict.CHANGED
    assert one(a, b, replica_count=Direction.LOWER).verdict is Verdict.WORSE
    assert one(a, b, replica_count=Direction.HIGHER).verdict is Verdict.BETTER
    assert recommend([one(a, b)]) == (
        "version_b is different from version_a in replica_count: nobody knows which way is better"
    )
    faster = one(measured("latency_p95", 100), measured("latency_p95", 80))
    assert recommend([one(a, b), faster]) == "version_b is 20% faster; changed: replica_count"


@pytest.mark.parametrize(
    ("name", "a", "b", "sentence"),
    [
        ("latency_p95", ("234.5", ""), ("0.30", "s"), "version_b is 28% slower"),
        ("latency_p95", ("0.30", "s"), ("234.5", ""), "version_b is 22% faster"),
        ("accuracy", ("0.92", ""), ("90", "%"), "version_b is 2.2% less accurate"),
        ("f1", ("0.9", ""), ("12", "%"), "version_b is 87% worse in f1"),
        ("training_seconds", ("40", ""), ("30", "s"), "version_b is 25% faster"),
        ("bleu", ("0.4", ""), ("38", "%"), f"{NOT_COMPARABLE}; units differ: bleu"),
        ("score", ("0.4", "ratio"), ("38", ""), f"{NOT_COMPARABLE}; units differ: score"),
        ("bleu", ("40", ""), ("50", ""), "version_b is 25% better in bleu"),
    ],
)
def test_a_missing_unit_is_the_usual_one_of_the_metric_or_like_no_other(
    name: str, a: tuple[str, str], b: tuple[str, str], sentence: str
) -> None:
    found = one(*(measured(name, value, unit=unit) for value, unit in (a, b)))
    assert recommend([found]) == sentence


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [
        ("1E-20", "1E12", "version_b is more than 1000000% slower"),
        ("1E-200", "1E300", "version_b is slower"),
        ("1E300", "1E-200", "version_b is 100% faster"),
        ("0", "1E-300", "version_b is slower"),
        ("1", "10001", "version_b is 1000000% slower"),
    ],
)
def test_numbers_that_are_far_apart_are_compared(a: str, b: str, sentence: str) -> None:
    found = one(measured("latency_p95", a), measured("latency_p95", b))
    assert recommend([found]) == sentence
    assert found.percent is None or math.isfinite(found.percent)


def test_the_same_data_is_said_where_it_is_known() -> None:
    a = measured("accuracy", "0.5", dataset_version_id="dsv_1", n=10)
    b = measured("accuracy", "0.6", dataset_version_id="dsv_1", n=20)

    assert one(a, b).is_same_data is True
    assert (one(a, b).n_a, one(a, b).n_b) == (10, 20)
    assert one(a, measured("accuracy", "0.6")).is_same_data is None
    assert one(a, measured("accuracy", None)).verdict is Verdict.MISSING
