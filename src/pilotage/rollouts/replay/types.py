"""What a replay is asked to do, what it is told, and what it found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pilotage.core.samples import Texts


class Measure(StrEnum):
    """What an answer is marked by, from 0 to 1,000."""

    USABLE = "usable"  # it says something, does not decline, and is JSON where that was asked for
    SIMILARITY = "similarity"  # to the answer that was kept
    EXACT = "exact"  # it is the answer that was kept


class ReplayVerdict(StrEnum):
    """What pairs of marks have shown."""

    NOT_WORSE = "not_worse"  # by the margin or more
    WORSE = "worse"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """What is replayed and judged: everything that the report depends on, beside the samples.

    ``candidate`` and ``baseline`` are deployments. ``cap_nano`` bounds what both cost together;
    ``margin`` is by how much, in parts of 1, the candidate's marks may be lower on average.
    """

    project_id: str
    alias: str
    baseline: str
    candidate: str
    samples: int = 200
    since_us: int = 0
    seed: int = 0
    measure: Measure = Measure.USABLE
    margin: float = 0.03
    cap_nano: int = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A sample that was opened."""

    id: str
    tenant_id: str
    texts: Texts


class Kept(NamedTuple):
    """The calls that were kept and opened, and how many no key opens any more."""

    calls: Sequence[Recorded]
    unopened: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a deployment answered: no text, and why, if it failed."""

    text: str
    is_refusal: bool
    code: str
    cost_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One sample, asked of both: marks by measure, in thousandths, and what it cost."""

    input_hash: str
    output_hash: str
    baseline: Mapping[Measure, int]
    candidate: Mapping[Measure, int]
    baseline_nano: int
    candidate_nano: int
    has_baseline_failed: bool
    has_candidate_failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the pairs of one measure say: means in parts of 1, evidence as its logarithm.

    ``low`` and ``high`` hold the mean difference with a confidence of 95 %, whenever one looks.
    ``needed`` is how many pairs show a drop of the margin with a probability of 0.9, given how much
    these differ.
    """

    baseline: float
    candidate: float
    difference: float
    low: float
    high: float
    worse: float
    not_worse: float
    needed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a replay found; ``hash`` is the SHA-256 of all of it but itself, as canonical JSON.

    The same samples, answers and plan have the same hash. Neither times nor ids of calls are in it.
    """

    alias: str
    baseline: str
    candidate: str
    seed: int
    measure: Measure
    margin: float
    pairs: int
    left_out: Mapping[str, int]
    measures: Mapping[Measure, Found]
    verdict: ReplayVerdict
    baseline_failed: int
    candidate_failed: int
    baseline_nano: int
    candidate_nano: int
    inputs: str
    outputs: str
    hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A replay that has ended; ``report`` is JSON. It never changes."""

    id: str
    rev: int
    project_id: str
    alias: str
    baseline_id: str
    candidate_id: str
    version_id: str
    hash: str
    report: str
    evidence_id: str
    created_at_us: int
    created_by: str
