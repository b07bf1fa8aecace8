"""What a replay sends, how answers are marked, and what pairs of marks have shown. Pure."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec

from pilotage.core.comparison import ALIKE, USABLE, mark_answer, measure_similarity
from pilotage.core.errors import PilotageError
from pilotage.core.gates.pairs import (
    count_pairs,
    find_interval,
    find_mean,
    find_spread,
    show_not_worse,
    show_worse,
)
from pilotage.core.gates.types import ALPHA
from pilotage.core.samples import Texts
from pilotage.registry.types import EvidenceDraft
from pilotage.rollouts.replay.types import (
    Answer,
    Found,
    Measure,
    Outcome,
    Recorded,
    ReplayPlan,
    ReplayVerdict,
    Report,
)

MOST_SAMPLES = 5_000
REPLAY_KIND = "replay"  # of evidence
DIGITS = 9  # of numbers in a report: the last ones differ between machines
UNASKED = frozenset({"no_replica", "upstream_unreachable", "breaker_open", "draining", "cancelled"})
"""Failures that say nothing of a model: a replay ends with them."""
UNHEARD = frozenset(
    {"unsupported", "invalid_request", "upstream_auth", "upstream_quota", "upstream_overloaded"}
)
"""Failures of the baseline that say nothing of its model: there is nothing to compare with."""
_JSON = msgspec.json.Encoder(order="sorted")


def check_plan(plan: ReplayPlan) -> None:
    """Raise ``invalid_request`` for a plan that cannot show anything."""
    if not 1 <= plan.samples <= MOST_SAMPLES:
        raise _invalid(f"samples: 1 to {MOST_SAMPLES:,} can be replayed at once.", "samples")
    if not 0 < plan.margin < 1:
        raise _invalid("margin: it is a part between 0 and 1, such as 0.03.", "margin")
    if plan.cap_nano <= 0:
        raise _invalid("max_cost: a replay costs something.", "max_cost")
    if plan.baseline == plan.candidate:
        raise _invalid("candidate: it is the baseline itself.", "candidate")


def make_body(alias: str, texts: Texts, seed: int) -> dict[str, Any]:
    """Return a sample as a request whose answer depends on the model alone, as far as it can."""
    return texts.body | {
        "model": alias,
        "temperature": 0,
        "seed": seed,
        "n": 1,
        "stream": False,
    }


def weigh(plan: ReplayPlan, recorded: Recorded, baseline: Answer, candidate: Answer) -> Outcome:
    """Return what came of one sample."""
    body = make_body(plan.alias, recorded.texts, plan.seed)
    answers = [baseline, candidate]
    said = [{"text": each.text, "code": each.code} for each in answers]
    return Outcome(
        input_hash=_hash(body | {"answer": recorded.texts.answer}),
        output_hash=_hash(said),
        baseline=mark(recorded.texts, baseline),
        candidate=mark(recorded.texts, candidate),
        baseline_nano=baseline.cost_nano,
        candidate_nano=candidate.cost_nano,
        has_baseline_failed=bool(baseline.code),
        has_candidate_failed=bool(candidate.code),
    )


def mark(texts: Texts, answer: Answer) -> dict[Measure, int]:
    """Return the marks of an answer, in thousandths; one that cannot be used has none but 0."""
    form = texts.body.get("response_format")
    wants_json = isinstance(form, dict) and form.get("type") in {"json_object", "json_schema"}
    usable = mark_answer(answer.text, is_refusal=answer.is_refusal, wants_json=wants_json)
    alike = measure_similarity(texts.answer, answer.text)
    return {
        Measure.USABLE: usable,
        Measure.SIMILARITY: alike * USABLE // ALIKE if usable else 0,
        Measure.EXACT: USABLE if texts.answer.strip() == answer.text.strip() else 0,
    }


def make_report(
    plan: ReplayPlan, names: tuple[str, str], outcomes: Sequence[Outcome], left: Mapping[str, int]
) -> Report:
    """Return what a replay found, with its hash.

    ``names`` are what baseline and candidate serve, ``left`` how many samples were left out, by
    why. Raises ``conflict`` without a single pair.
    """
    if not outcomes:
        why = ", ".join(f"{count} {name}" for name, count in sorted(left.items())) or "none is kept"
        raise PilotageError(
            "conflict",
            f"No sample of {plan.alias!r} could be replayed: {why}.",
            hint=""
            if left
            else "Let a tenant's calls be kept: pilotage tenants change NAME --sample-percent 5",
        )
    found = {measure: find(measure, plan.margin, outcomes) for measure in Measure}
    report = Report(
        alias=plan.alias,
        baseline=names[0],
        candidate=names[1],
        seed=plan.seed,
        measure=plan.measure,
        margin=plan.margin,
        pairs=len(outcomes),
        left_out=dict(sorted(left.items())),
        measures=found,
        verdict=decide(found[plan.measure]),
        baseline_failed=sum(each.has_baseline_failed for each in outcomes),
        candidate_failed=sum(each.has_candidate_failed for each in outcomes),
        baseline_nano=sum(each.baseline_nano for each in outcomes),
        candidate_nano=sum(each.candidate_nano for each in outcomes),
        inputs=_hash(sorted(each.input_hash for each in outcomes)),
        outputs=_hash(sorted(each.output_hash for each in outcomes)),
    )
    return replace(report, hash=_hash_report(report))


def find(measure: Measure, margin: float, outcomes: Sequence[Outcome]) -> Found:
    """Return what the pairs of a measure say; there is at least one.

    That neither answered well says nothing for the candidate: it is no evidence that it is as good.
    """
    pairs: dict[int, int] = {}
    for outcome in outcomes:
        difference = outcome.candidate[measure] - outcome.baseline[measure]
        pairs[difference] = pairs.get(difference, 0) + 1
    mute = sum(not (each.candidate[measure] or each.baseline[measure]) for each in outcomes)
    telling = {d: n - mute if d == 0 else n for d, n in pairs.items()}
    low, high = find_interval(pairs)
    spread, n = find_spread(pairs), len(outcomes)
    return Found(
        baseline=_round(sum(each.baseline[measure] for each in outcomes) / USABLE / n),
        candidate=_round(sum(each.candidate[measure] for each in outcomes) / USABLE / n),
        difference=_round(find_mean(pairs) or 0.0),
        low=_round(low),
        high=_round(high),
        worse=_round(show_worse(pairs)),
        not_worse=_round(show_not_worse(telling, margin)),
        needed=count_pairs(margin, spread) if spread else None,
    )


def decide(found: Found) -> ReplayVerdict:
    """Return the verdict on a measure; evidence needs ``1 / ALPHA``."""
    bound = math.log(1 / ALPHA)
    if found.worse >= bound:
        return ReplayVerdict.WORSE
    return ReplayVerdict.NOT_WORSE if found.not_worse >= bound else ReplayVerdict.UNDECIDED


def write_report(report: Report) -> str:
    """Return a report as JSON: equal ones as equal texts."""
    return _JSON.encode(report).decode()


def read_report(text: str) -> Report:
    """Read a report that was written."""
    return msgspec.json.decode(text, type=Report)


def is_whole(report: Report) -> bool:
    """Say whether a report's hash is that of what it says."""
    return report.hash == _hash_report(report)


def draft_evidence(
    replay_id: str, report: Report, others: int = 0, *, judges: bool
) -> EvidenceDraft:
    """Return a report as evidence for gates: the difference of the measure that decides.

    ``others`` is how many other reports there are of the version. Each may err, so who chooses
    among them errs as often as all of them together at most, and the note says so. Unless it
    ``judges``, as only a comparison with what serves does, it passes nothing and fails nothing.
    """
    found = report.measures[report.measure]
    note = f"{report.verdict} than {report.baseline} by a margin of {report.margin:g}"
    if others:
        error = min(1.0, ALPHA * (others + 1))
        note += f"; one of {others + 1} reports of it, which err with up to {error:.0%} together"
    passed = {ReplayVerdict.NOT_WORSE: True, ReplayVerdict.WORSE: False}.get(report.verdict)
    if not judges:
        passed = None
        note += "; another deployment has more traffic"
    return EvidenceDraft(
        kind=REPLAY_KIND,
        subject=report.measure,
        value=_decimal(found.difference),
        low=_decimal(min(found.low, found.difference)),
        high=_decimal(max(found.high, found.difference)),
        unit="ratio",
        n=report.pairs,
        passed=passed,
        hash=report.hash,
        run_id=replay_id,
        tool="pilotage replay",
        note=note,
    )


def _decimal(number: float) -> Decimal:
    return Decimal(repr(number))


def _hash_report(report: Report) -> str:
    """Return the hash of all but costs: prices and caches of prompts change, answers need not."""
    return _hash(replace(report, hash="", baseline_nano=0, candidate_nano=0))


def _hash(value: object) -> str:
    return hashlib.sha256(_JSON.encode(value)).hexdigest()


def _round(number: float) -> float:
    return round(number, DIGITS)


def _invalid(detail: str, param: str) -> PilotageError:
    return PilotageError("invalid_request", detail, param=param)
