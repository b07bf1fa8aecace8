"""What the names of metrics mean, by name, by word, by unit, or because somebody says it."""

from decimal import Decimal
from pathlib import Path

import pytest

from pilotage.registry.metrics import (
    KIND_COST,
    METRICS,
    Direction,
    Family,
    find_meaning,
    in_unit,
)

HIGHER, LOWER, UNKNOWN = Direction
GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "compare-versions.md"


@pytest.mark.parametrize(
    ("name", "unit", "direction", "family"),
    [
        ("accuracy", "", HIGHER, Family.ACCURACY),
        ("latency_p95", "", LOWER, Family.TIME),
        ("fraud_accuracy", "", HIGHER, Family.ACCURACY),
        ("accuracy_loss", "", LOWER, Family.OTHER),
        ("Queue-Latency", "", LOWER, Family.TIME),
        ("latency_error", "", LOWER, Family.OTHER),
        ("tokens_per_s", "", HIGHER, Family.OTHER),
        ("rows_per_cost", "", LOWER, Family.COST),
        ("macro f1", "", HIGHER, Family.OTHER),
        ("warm_up", "s", LOWER, Family.TIME),
        ("bill", "EUR", LOWER, Family.COST),
        ("speed", "tokens/s", HIGHER, Family.OTHER),
        ("score", "", UNKNOWN, Family.OTHER),
        ("error_free_rate", "", UNKNOWN, Family.OTHER),
        ("cost_savings", "USD", UNKNOWN, Family.OTHER),
        ("accuracy_drop", "", UNKNOWN, Family.OTHER),
        ("replica_count", "", UNKNOWN, Family.OTHER),
    ],
)
def test_a_direction_is_known_by_name_word_or_unit(
    name: str, unit: str, direction: Direction, family: Family
) -> None:
    assert find_meaning(name, unit)[:2] == (direction, family)


def test_the_guide_lists_every_metric_with_its_direction() -> None:
    rows = [line.split("|")[1:3] for line in GUIDE.read_text().splitlines() if line[:3] == "| `"]
    told = {name: better.strip() for names, better in rows for name in names.split("`")[1::2]}

    words = {UNKNOWN: "not known"}
    assert told == {
        name: words.get(meaning.direction, meaning.direction.value)
        for name, meaning in METRICS.items()
    }


def test_a_metric_of_costs_is_a_cost() -> None:
    assert find_meaning("storage", kind=KIND_COST).family is Family.COST


def test_what_is_given_wins() -> None:
    assert find_meaning("score", given={"score": HIGHER}).direction is HIGHER
    assert find_meaning("accuracy", given={"accuracy": HIGHER}) == METRICS["accuracy"]
    turned = find_meaning("accuracy", given={"accuracy": LOWER})
    assert (turned.direction, turned.family) == (LOWER, Family.OTHER)


@pytest.mark.parametrize(
    ("unit", "other", "value"),
    [
        ("s", "ms", 2000),
        ("ms", "ms", 2),
        ("", "", 2),
        ("", "ms", None),
        ("ms", "", None),
        ("%", "ratio", "0.02"),
        ("ratio", "%", 200),
        ("min", "s", 120),
        ("kg", "m", None),
        ("USD", "EUR", None),
    ],
)
def test_units_are_converted_where_they_are_of_a_kind(unit: str, other: str, value: object) -> None:
    expected = None if value is None else Decimal(str(value))
    assert in_unit(Decimal(2), unit, other) == expected
