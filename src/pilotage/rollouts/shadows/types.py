"""What was counted of pairs of answers, and what that says."""

from typing import NamedTuple

import msgspec

from pilotage.core.sketch import Sketch


class PairKey(NamedTuple):
    """Whose answers were compared: ``rollout`` is a step, "" outside of rollouts."""

    project_id: str
    alias: str
    rollout: str
    baseline: str
    candidate: str


class Held(msgspec.Struct, kw_only=True):
    """Counts of pairs; adding two in any order gives the same.

    ``marks`` counts differences of marks in thousandths, ``faster`` and ``cheaper`` 1,000 where
    the candidate was, -1,000 where the baseline was, and 0 for equal ones. ``with_texts`` are the
    pairs in which both said something; similarity is in millionths.
    """

    pairs: int = 0
    with_texts: int = 0
    exact: int = 0
    similarity_sum: int = 0
    with_schema: int = 0
    schema_kept: int = 0
    marks: dict[int, int] = {}
    faster: dict[int, int] = {}
    cheaper: dict[int, int] = {}
    baseline_us: Sketch = msgspec.field(default_factory=lambda: Sketch(buckets={}))
    candidate_us: Sketch = msgspec.field(default_factory=lambda: Sketch(buckets={}))
    baseline_nano: int = 0
    candidate_nano: int = 0
    baseline_letters: int = 0
    candidate_letters: int = 0


class Comparison(NamedTuple):
    """What the pairs of two arms say; shares from 0 to 1, None of nothing.

    ``mark`` is the mean difference of marks and ``low`` to ``high`` hold it with a confidence of
    95 %, whenever one looks; ``worse`` and ``not_worse`` are logarithms of e-values.
    """

    key: PairKey
    pairs: int
    exact: float | None
    similarity: float | None
    schema_kept: float | None
    mark: float | None
    low: float
    high: float
    worse: float
    not_worse: float
    baseline_ms: float | None
    candidate_ms: float | None
    baseline_nano: int
    candidate_nano: int
    baseline_letters: float | None
    candidate_letters: float | None
