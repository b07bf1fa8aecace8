"""Burn-rate rules of an objective: how fast its budget of bad calls is being used up.

A burn rate of 1 uses the budget exactly up in the objective's span of 30 days. Each rule needs two
windows to burn: the long one says that it matters, the short one that it still goes on. The pairs
and factors are those of the Site Reliability Workbook, chapter 5 ("Alerting on SLOs", table 5-8);
the least numbers of bad calls and of calls keep one failure of a quiet hour from waking anybody.
"""

from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.core.names import check_alias, check_name
from pilotage.monitoring.alerts.types import (
    AlertRule,
    Indicator,
    MetricType,
    Severity,
    Slo,
    SloSpec,
)

SPAN_US = 30 * 24 * 3_600_000_000
PAGE, TICKET = "page", "ticket"
MOST_DECIMALS = 4


class BurnPair(NamedTuple):
    """A rule: both windows burn faster than the factor."""

    long: str
    short: str
    factor: Decimal
    urgency: str


PAIRS = (
    BurnPair("1h", "5m", Decimal("14.4"), PAGE),
    BurnPair("6h", "30m", Decimal(6), PAGE),
    BurnPair("1d", "2h", Decimal(3), TICKET),
    BurnPair("3d", "6h", Decimal(1), TICKET),
)
WINDOWS = tuple(dict.fromkeys(window for pair in PAIRS for window in (pair.short, pair.long)))


def burn_rate(bad: int, total: int, budget: Decimal) -> float | None:
    """Return how many times faster than allowed the budget is used; None without calls."""
    return bad / total / float(budget) if total else None


@lru_cache(maxsize=4096)  # they are asked for whenever anything at all has changed
def list_burn_rules(slo: Slo) -> tuple[AlertRule, ...]:
    """Return the alert rules of an objective, in the condition language.

    A rule that could never fire, because not even bad calls alone burn that fast, is left out.
    """
    return tuple(_make_rule(slo, pair) for pair in PAIRS if pair.factor * slo.budget < 1)


def check_slo(name: str, spec: SloSpec) -> None:
    """Raise ``invalid_request`` for what an objective cannot be."""
    check_name(name)
    if spec.alias:
        check_alias(spec.alias, "alias")
    if spec.team:
        check_name(spec.team, "team")
    _check_objective(spec.objective)
    if (spec.indicator is Indicator.ERRORS) != (spec.threshold_us == 0) or spec.threshold_us < 0:
        raise PilotageError(
            "invalid_request",
            "An objective on latency or ttft has a threshold, one on errors has none.",
            hint="Write a threshold such as 2s.",
            param="threshold",
        )
    if not 1 <= spec.min_bad <= spec.min_total <= 10**9:
        raise PilotageError(
            "invalid_request",
            "min_bad is at least 1, and min_total at least min_bad.",
            param="min_bad",
        )


def _check_objective(text: str) -> None:
    digits = text.replace(".", "", 1)
    fraction = text.partition(".")[2]
    is_number = digits.isascii() and digits.isdecimal() and len(text) <= 10
    if not is_number or len(fraction) > MOST_DECIMALS or not 0 < Decimal(text) < 100:
        raise PilotageError(
            "invalid_request",
            f"{text[:20]!r} is no objective.",
            hint="Write the percentage of calls that shall be good, such as 99.9: above 0, below "
            f"100, at most {MOST_DECIMALS} decimals.",
            param="objective",
        )


def _make_rule(slo: Slo, pair: BurnPair) -> AlertRule:
    label = f'{{slo="{slo.name}"}}'
    condition = " and ".join(
        (
            f"burn_rate{label}[{pair.long}] > {pair.factor}",
            f"burn_rate{label}[{pair.short}] > {pair.factor}",
            f"bad_events{label}[{pair.long}] >= {slo.min_bad}",
            f"total_events{label}[{pair.long}] >= {slo.min_total}",
        )
    )
    return AlertRule(
        id=f"{slo.id}.{pair.long}",
        rev=slo.rev,
        project_id=slo.project_id,
        name=f"{slo.name}-burn-{pair.long}",
        condition=condition,
        severity=Severity.CRITICAL if pair.urgency == PAGE else Severity.WARNING,
        metric_type=MetricType.PERFORMANCE,
        team=slo.team,
        runbook=slo.runbook,
        summary=f"{slo.name}: the budget of {100 - Decimal(slo.objective)} % bad calls is used up "
        f"{pair.factor} times too fast",
        labels={"urgency": pair.urgency},
        is_enabled=slo.is_enabled,
        created_at_us=slo.created_at_us,
    )
