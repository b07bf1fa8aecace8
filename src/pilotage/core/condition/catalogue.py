"""The metrics that conditions can ask of: one table, of which the reference page is made.

A metric is one number per series. The labels that it has by itself (``split_by``) are those it
is kept by; a filter on another of its ``labels`` splits it by that, too, and a filter
``alias=""`` takes the whole project together.
"""

import math
from dataclasses import dataclass

from pilotage.core.condition.units import (
    EVENTS,
    RATIO,
    REPLICAS,
    REQUESTS,
    REQUESTS_PER_SECOND,
    SECONDS,
    TOKENS,
    TOKENS_PER_SECOND,
    USD,
    USD_PER_REQUEST,
    Unit,
    format_unit,
)
from pilotage.core.duration import UNITS_US

_MINUTE = UNITS_US["m"]
MAX_WINDOW_US = 30 * UNITS_US["d"]
_TRAFFIC = ("alias", "tenant", "arm", "version", "model")
_MONEY = ("alias", "tenant", "model", "version", "feature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What can be asked of.

    ``low`` and ``high`` are the least and most that its value can be. ``window_us`` is how far back
    it looks, unless ``[5m]`` says otherwise; 0 for what is of now, or of a calendar hour, day or
    month so far, which begins at 0 again after ``period_us`` at the latest.
    """

    name: str
    unit: Unit
    help: str
    labels: tuple[str, ...] = _TRAFFIC
    split_by: tuple[str, ...] = ("alias",)
    window_us: int = _MINUTE
    period_us: int = 0
    low: float = 0.0
    high: float = math.inf

    @property
    def gauge(self) -> str:
        """Its name in Prometheus."""
        return f"pilotage_{self.name}"

    @property
    def unit_name(self) -> str:
        """Its unit in words."""
        return format_unit(self.unit)


def _list_latencies() -> list[Metric]:
    quantiles = {
        "latency": ("from a call's arrival to its end", (50, 90, 95, 99)),
        "ttft": ("from a call's arrival to the first token of its answer", (50, 95, 99)),
        "time_per_chunk": ("between two chunks of a streamed answer", (95,)),
        "queue": ("that a call waits to be let in", (95,)),
    }
    metrics = [
        Metric(
            name=f"p{quantile}_{name}",
            unit=SECONDS,
            help=f"Time {what}: what {quantile} % of calls stay within",
        )
        for name, (what, points) in quantiles.items()
        for quantile in points
    ]
    mean = Metric(name="mean_latency", unit=SECONDS, help="Mean time from arrival to end")
    return [*metrics, mean]


def _list_traffic() -> list[Metric]:
    return [
        Metric(
            name="error_rate",
            unit=RATIO,
            high=1.0,
            help="Share of the calls let in that failed",
        ),
        Metric(
            name="refusal_rate",
            unit=RATIO,
            high=1.0,
            help="Share of all calls that were refused",
        ),
        Metric(name="request_rate", unit=REQUESTS_PER_SECOND, help="Calls that ended per second"),
        Metric(name="request_count", unit=REQUESTS, help="Calls that ended"),
        Metric(name="error_count", unit=REQUESTS, help="Calls that failed"),
        Metric(name="token_count", unit=TOKENS, help="Tokens of all classes"),
        Metric(name="input_tokens", unit=TOKENS, help="Tokens of prompts"),
        Metric(name="output_tokens", unit=TOKENS, help="Tokens of answers"),
        Metric(name="throughput", unit=TOKENS_PER_SECOND, help="Tokens of answers per second"),
        Metric(name="guard_events", unit=EVENTS, help="Calls that a guard refused"),
    ]


def _list_costs() -> list[Metric]:
    def so_far(name: str, period: str, period_us: int) -> Metric:
        return Metric(
            name=name,
            unit=USD,
            help=f"Cost of this {period} (UTC) so far",
            labels=_MONEY,
            split_by=(),
            window_us=0,
            period_us=period_us,
            low=-math.inf,  # what is taken back may be more than what is spent
        )

    budget = Metric(
        name="budget",
        unit=USD,
        help="The budget of a day; of one for a month, the share of one of its days",
        labels=("alias", "tenant", "model", "feature"),
        split_by=(),
        window_us=0,
    )
    used = Metric(
        name="budget_used",
        unit=RATIO,
        help="Share of the fullest budget that is used up",
        labels=budget.labels,
        split_by=(),
        window_us=0,
        low=-math.inf,
    )

    def spike(name: str, what: str) -> Metric:
        return Metric(
            name=name,
            unit=RATIO,
            help=f"{what} of this day (UTC) so far by what would stand out: a spike from 1 on",
            labels=(),
            split_by=(),
            window_us=0,
            period_us=UNITS_US["d"],
            low=-math.inf,
        )

    return [
        Metric(name="cost", unit=USD, help="Cost of the calls"),
        Metric(
            name="cost_per_request", unit=USD_PER_REQUEST, help="Cost of the calls by their number"
        ),
        so_far("hourly_cost", "hour", UNITS_US["h"]),
        so_far("daily_cost", "day", UNITS_US["d"]),
        so_far("monthly_cost", "month", 31 * UNITS_US["d"]),
        budget,
        used,
        spike("cost_spike", "Cost"),
        spike("traffic_spike", "Calls"),
    ]


def _list_infrastructure() -> list[Metric]:
    def of_now(name: str, unit: Unit, help_: str, high: float = math.inf) -> Metric:
        return Metric(
            name=name,
            unit=unit,
            help=help_,
            labels=("alias", "version"),
            window_us=0,
            high=high,
        )

    return [
        of_now("replica_count", REPLICAS, "Replicas that exist"),
        of_now("ready_replicas", REPLICAS, "Replicas that can answer"),
        of_now("cpu_usage", RATIO, "Share of the processors' time that replicas use", 1.0),
        of_now("memory_usage", RATIO, "Share of the memory that replicas use", 1.0),
        of_now("gpu_usage", RATIO, "Share of the GPU's time that is used", 1.0),
    ]


def _list_quality() -> list[Metric]:
    def share(name: str, help_: str) -> Metric:
        return Metric(
            name=name,
            unit=RATIO,
            help=help_,
            labels=("alias", "tenant", "version"),
            window_us=UNITS_US["h"],
            high=1.0,
        )

    drift = Metric(
        name="prediction_distribution_shift",
        unit=RATIO,
        help="PSI of answers from the reference, above 0.1 no chance: the measure that moved most",
        labels=("alias", "version", "measure"),
        window_us=0,
    )
    return [
        drift,
        Metric(
            name="drift_score",
            unit=RATIO,
            high=1.0,
            help="Jensen-Shannon divergence from the reference: the measure that moved most",
            labels=drift.labels,
            window_us=0,
        ),
        share("feedback_score", "Mean score that users gave, from 0 to 1"),
        share("accuracy", "Share of graded answers that were right"),
        share("hallucination_rate", "Share of graded answers that claimed what is not so"),
        share("toxicity_score", "Mean toxicity of graded answers"),
        share("validation_pass_rate", "Share of answers that passed their checks"),
    ]


def _list_objectives() -> list[Metric]:
    def of_objective(name: str, unit: Unit, help_: str) -> Metric:
        return Metric(name=name, unit=unit, help=help_, labels=("slo",), split_by=("slo",))

    return [
        of_objective(
            "burn_rate", RATIO, "How many times faster than allowed an objective's budget is used"
        ),
        of_objective("bad_events", EVENTS, "Calls that were not as the objective wants them"),
        of_objective("total_events", EVENTS, "Calls that the objective is about"),
    ]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_list_latencies(),
        *_list_traffic(),
        *_list_costs(),
        *_list_infrastructure(),
        *_list_quality(),
        *_list_objectives(),
    )
}
