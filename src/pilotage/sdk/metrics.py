"""What the Python API says of an endpoint: its speed, its cost and the quality of its answers.

A number that nobody measured is None, never a constant: 0 means that it was measured and was 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(kw_only=True)
class ModelMetrics:
    """How an endpoint did within a window of time that ends at ``timestamp``.

    Latencies are milliseconds, ``error_rate`` is 0 to 1 of the calls that were not refused,
    ``accelerator_duty_cycle`` is percent of the GPUs' time. ``model_id`` is the version that
    answered most calls.
    """

    model_id: str = ""
    endpoint_id: str
    timestamp: datetime
    request_count: int
    error_count: int
    latency_p50: float | None = None
    latency_p95: float | None = None
    latency_p99: float | None = None
    throughput_qps: float = 0.0
    error_rate: float | None = None
    accelerator_duty_cycle: float | None = None
    replica_count: int | None = None


@dataclass(kw_only=True)
class CostMetrics:
    """What an endpoint cost within a period, in USD.

    ``total_cost`` is the sum of tokens bought from providers (``token_cost``), of replicas
    (``compute_cost``), of storage, of network and of whatever else was booked. Requests are those
    of clients, tokens all that were paid for. ``cost_per_request`` and ``cost_per_1m_tokens`` are
    of the total, None where there was no call or no token.
    """

    model_id: str = ""
    endpoint_id: str
    period_start: datetime
    period_end: datetime
    total_requests: int
    total_tokens: int = 0
    token_cost: float = 0.0
    compute_cost: float
    storage_cost: float
    network_cost: float
    total_cost: float
    cost_per_request: float | None = None
    cost_per_1m_tokens: float | None = None


@dataclass(kw_only=True)
class QualityMetrics:
    """How good an endpoint's answers are, each share 0 to 1, None where nothing was judged.

    ``drift_score`` is how far the measure that moved most has moved: a Jensen-Shannon divergence, 0
    for none. ``counts`` says of how many judgements each of the others is made, ``intervals``
    between which bounds it lies with 95 % confidence.
    """

    accuracy: float | None = None
    hallucination_rate: float | None = None
    toxicity_score: float | None = None
    drift_score: float | None = None
    validation_pass_rate: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
