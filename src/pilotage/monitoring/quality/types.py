"""Feedback on answers, and the estimates of quality that it adds up to."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

COMMENT = "feedback comment"  # what the keys that comments are sealed for are called


class FeedbackState(StrEnum):
    """Whether the call is known: not yet, yes, or there is none of that tenant."""

    WAITING = "waiting"
    MATCHED = "matched"
    UNKNOWN = "unknown"


class Aspect(StrEnum):
    """What an opinion is: a score, a comment, or a label by what it judges.

    Labels that are not in :data:`LABELS` judge nothing in particular.
    """

    SCORE = "score"
    COMMENT = "comment"
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
    """One thing that was said of a call, the last of its aspect; ``id`` is that of the feedback.

    ``score`` is in millionths and ``comment`` sealed, None for none. ``alias``, ``version_id`` and
    ``model`` are the call's, "" until it is known. ``taken_at_us`` is when it was read out of the
    spool, ``due_us`` when its call is looked up next or, once that is settled, when it is dropped;
    ``is_counted`` says that a score of the call is among what drift compares.
    """

    id: str
    project_id: str
    tenant_id: str
    key_id: str
    call_id: str
    aspect: Aspect
    at_us: int
    score: int | None = None
    label: str = ""
    comment: bytes | None = None
    state: FeedbackState = FeedbackState.WAITING
    alias: str = ""
    version_id: str = ""
    model: str = ""
    taken_at_us: int = 0
    due_us: int = 0
    is_counted: bool = False

    @property
    def place(self) -> tuple[str, Aspect, str, str]:
        """What there is one opinion of: a call as its tenant knows it, and an aspect."""
        return self.call_id, self.aspect, self.tenant_id, self.project_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One feedback: what of it still is the last word on its call."""

    id: str
    tenant_id: str
    key_id: str
    call_id: str
    at_us: int
    score: int | None
    label: str
    comment: bytes | None
    state: FeedbackState
    alias: str
    version_id: str
    model: str


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
