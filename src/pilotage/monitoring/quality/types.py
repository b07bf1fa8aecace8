"""Feedback on answers, and the estimates of quality that it adds up to."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class FeedbackState(StrEnum):
    """Whether the call is known: not yet, yes, or there is none of that tenant."""

    WAITING = "waiting"
    MATCHED = "matched"
    UNKNOWN = "unknown"


class Aspect(StrEnum):
    """What a label judges; labels that are not in :data:`LABELS` judge nothing in particular."""

    ANY = ""
    ACCURACY = "accuracy"
    HALLUCINATION = "hallucination_rate"
    TOXICITY = "toxicity_score"
    VALIDATION = "validation_pass_rate"


LABELS: dict[str, tuple[Aspect, bool]] = {
    "correct": (Aspect.ACCURACY, True),
    "wrong": (Aspect.ACCURACY, False),
    "hallucination": (Aspect.HALLUCINATION, True),
    "grounded": (Aspect.HALLUCINATION, False),
    "toxic": (Aspect.TOXICITY, True),
    "harmless": (Aspect.TOXICITY, False),
    "valid": (Aspect.VALIDATION, True),
    "invalid": (Aspect.VALIDATION, False),
}
"""Which labels count for which metric, and whether they count as one or as none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What was said of a call, the last of its aspect; ``score`` in millionths, None for none.

    ``alias``, ``version_id`` and ``model`` are the call's, "" until it is known.
    """

    id: str
    project_id: str
    tenant_id: str
    key_id: str
    call_id: str
    aspect: Aspect
    at_us: int
    score: int | None
    label: str
    state: FeedbackState = FeedbackState.WAITING
    alias: str = ""
    version_id: str = ""
    model: str = ""


class Estimate(NamedTuple):
    """A share or mean of ``n`` opinions, and the interval that has it at 95 % confidence."""

    value: float
    low: float
    high: float
    n: int


class Grouping(StrEnum):
    """What quality can be told apart by."""

    ALIAS = "alias"
    VERSION = "version"
    TENANT = "tenant"


class Tally(NamedTuple):
    """How many opinions of a group there are of a label, and their scores' number and sum."""

    project_id: str
    group: tuple[str, ...]
    label: str
    opinions: int
    scored: int
    score_sum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What the opinions on a group's answers come to; None where there are none to tell from."""

    project_id: str
    group: tuple[str, ...]
    feedback_score: Estimate | None
    accuracy: Estimate | None
    hallucination_rate: Estimate | None
    toxicity_score: Estimate | None
    validation_pass_rate: Estimate | None
