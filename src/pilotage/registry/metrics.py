"""What the names of metrics mean: which way is better, in which words it is said, in what unit.

A metric is known by its name, else by a word in its name, else by its unit; one that none of these
knows has no better direction until somebody gives it.
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
_RATIO = "ratio"
_FASTER = Meaning(LOWER, Family.TIME, "ms")
_CHEAPER = Meaning(LOWER, Family.COST, "USD")

METRICS: Mapping[str, Meaning] = {
    "accuracy": Meaning(HIGHER, Family.ACCURACY, _RATIO),
    "latency_p50": _FASTER,
    "latency_p95": _FASTER,
    "latency_p99": _FASTER,
    "ttft_p50": _FASTER,
    "ttft_p95": _FASTER,
    "throughput_qps": Meaning(HIGHER, unit="1/s"),
    "tokens_per_second": Meaning(HIGHER, unit="1/s"),
    "error_rate": Meaning(LOWER, unit=_RATIO),
    "hallucination_rate": Meaning(LOWER, unit=_RATIO),
    "toxicity_score": Meaning(LOWER, unit=_RATIO),
    "drift_score": Meaning(LOWER, unit=_RATIO),
    "validation_pass_rate": Meaning(HIGHER, unit=_RATIO),
    "cost_per_request": _CHEAPER,
    "cost_per_1m_tokens": _CHEAPER,
    "total_cost": _CHEAPER,
    "replica_count": Meaning(UNKNOWN),
    "accelerator_duty_cycle": Meaning(UNKNOWN, unit="%"),
}
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
    (_FASTER, frozenset({"latency", "ttft", "duration", "seconds", "ms"})),
    (Meaning(HIGHER, Family.ACCURACY), frozenset({"accuracy"})),
    (
        Meaning(HIGHER),
        frozenset(
            {"throughput", "qps", "rps", "f1", "precision", "recall", "auc", "auroc", "bleu"}
            | {"rouge", "rougel", "meteor", "ndcg", "mrr", "r2", "pass", "passed", "win", "exact"}
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


def in_unit(value: Decimal, unit: str, other: str) -> Decimal | None:
    """Return a value in another unit; None where the units have nothing to do with one another."""
    if unit == other or not unit or not other:
        return value
    if unit in SECONDS and other in SECONDS:
        return value * SECONDS[unit] / SECONDS[other]
    if (unit, other) in {("%", _RATIO), (_RATIO, "%")}:
        return value / 100 if unit == "%" else value * 100
    return None


def _by_word(name: str) -> Meaning | None:
    words = set(re.split(r"[^a-z0-9]+", name.casefold()))
    if "per" in words and {"second", "s", "minute"} & words:
        return Meaning(HIGHER)
    return next((meaning for meaning, known in WORDS if known & words), None)


def _by_unit(unit: str, kind: str) -> Meaning:
    if unit in SECONDS:
        return _FASTER
    if unit in _MONEY or kind == KIND_COST:
        return _CHEAPER
    return Meaning(HIGHER if _RATE.fullmatch(unit) else UNKNOWN)
