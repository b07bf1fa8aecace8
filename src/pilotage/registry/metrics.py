"""What the names of metrics mean: which way is better, in which words it is said, in what unit.

A metric is known by its name, else by a word in its name, else by its unit; one that none of these
knows has no better direction until somebody gives it. The same name says what a number without a
unit is in.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

KIND_PERFORMANCE = "metric.performance"
KIND_COST = "metric.cost"


class Direction(StrEnum):
    """Which way a metric is better."""

    HIGHER = "higher"
    LOWER = "lower"
    UNKNOWN = "unknown"


class Family(StrEnum):
    """In which words a difference is said: more accurate, faster, cheaper, or better in NAME."""

    ACCURACY = "accuracy"
    TIME = "time"
    COST = "cost"
    OTHER = "other"


class Meaning(NamedTuple):
    """What a metric's name means; ``unit`` is what it is usually given in."""

    direction: Direction
    family: Family = Family.OTHER
    unit: str = ""


HIGHER, LOWER, UNKNOWN = Direction
RATIO = "ratio"
_FASTER = Meaning(LOWER, Family.TIME, "ms")
_CHEAPER = Meaning(LOWER, Family.COST, "USD")

METRICS: Mapping[str, Meaning] = {
    "accuracy": Meaning(HIGHER, Family.ACCURACY, RATIO),
    "latency_p50": _FASTER,
    "latency_p95": _FASTER,
    "latency_p99": _FASTER,
    "ttft_p50": _FASTER,
    "ttft_p95": _FASTER,
    "throughput_qps": Meaning(HIGHER, unit="1/s"),
    "tokens_per_second": Meaning(HIGHER, unit="1/s"),
    "error_rate": Meaning(LOWER, unit=RATIO),
    "hallucination_rate": Meaning(LOWER, unit=RATIO),
    "toxicity_score": Meaning(LOWER, unit=RATIO),
    "drift_score": Meaning(LOWER, unit=RATIO),
    "validation_pass_rate": Meaning(HIGHER, unit=RATIO),
    "cost_per_request": _CHEAPER,
    "cost_per_1m_tokens": _CHEAPER,
    "total_cost": _CHEAPER,
    "replica_count": Meaning(UNKNOWN),
    "accelerator_duty_cycle": Meaning(UNKNOWN, unit="%"),
}
TURNING = frozenset(  # words with which more of something may be less of it
    {"free", "without", "avoided", "drop", "reduction", "saved", "saving", "savings", "recovered"}
)
WORDS: tuple[tuple[Meaning, frozenset[str]], ...] = (  # the first that has a word of the name wins
    (
        Meaning(LOWER),
        frozenset(
            {"error", "errors", "failure", "failures", "loss", "perplexity", "hallucination"}
            | {"toxicity", "drift", "violations", "wer", "cer", "mse", "mae", "rmse", "ece"}
            | {"brier"}
        ),
    ),
    (_CHEAPER, frozenset({"cost", "price"})),
    (Meaning(LOWER, Family.TIME, "s"), frozenset({"seconds"})),
    (_FASTER, frozenset({"latency", "ttft", "ms"})),
    (Meaning(LOWER, Family.TIME), frozenset({"duration"})),
    (Meaning(HIGHER, Family.ACCURACY, RATIO), frozenset({"accuracy"})),
    (
        Meaning(HIGHER, unit=RATIO),
        frozenset({"f1", "precision", "recall", "auc", "auroc"}),
    ),
    (
        Meaning(HIGHER),
        frozenset(
            {"throughput", "qps", "rps", "bleu", "rouge", "rougel", "meteor", "ndcg", "mrr", "r2"}
            | {"pass", "passed", "win", "exact"}
        ),
    ),
)
SECONDS = {"us": Decimal("0.000001"), "ms": Decimal("0.001"), "s": Decimal(1), "min": Decimal(60)}
_MONEY = frozenset({"USD", "EUR", "nano_usd"})
_RATE = re.compile(r"(?:1|\w+)/s")


def find_meaning(
    name: str, unit: str = "", kind: str = "", given: Mapping[str, Direction] | None = None
) -> Meaning:
    """Return what a metric means; ``given`` says the directions of names that somebody knows."""
    meaning = METRICS.get(name) or _by_word(name) or _by_unit(unit, kind)
    direction = (given or {}).get(name, meaning.direction)
    return meaning if direction is meaning.direction else Meaning(direction, unit=meaning.unit)


def find_unit(name: str, unit: str, kind: str = "") -> str:
    """Return the unit of a number: what it is given in, else what its metric usually is.

    Empty where nobody knows.
    """
    return unit or find_meaning(name, kind=kind).unit


def in_unit(value: Decimal, unit: str, other: str) -> Decimal | None:
    """Return a value in another unit; None where the units have nothing to do with one another.

    A unit that nobody knows (empty) is like no other.
    """
    if unit == other:
        return value
    if unit in SECONDS and other in SECONDS:
        return value * SECONDS[unit] / SECONDS[other]
    if (unit, other) in {("%", RATIO), (RATIO, "%")}:
        return value / 100 if unit == "%" else value * 100
    return None


def _by_word(name: str) -> Meaning | None:
    words = set(re.split(r"[^a-z0-9]+", name.casefold()))
    if words & TURNING:
        return Meaning(UNKNOWN)
    if "per" in words and {"second", "s", "minute"} & words:
        return Meaning(HIGHER)
    return next((meaning for meaning, known in WORDS if known & words), None)


def _by_unit(unit: str, kind: str) -> Meaning:
    if unit in SECONDS:
        return _FASTER
    if unit in _MONEY or kind == KIND_COST:
        return _CHEAPER
    return Meaning(HIGHER if _RATE.fullmatch(unit) else UNKNOWN)
