"""Gates: small named checks of what is known of a version, and what a stage asks of it. Pure.

A gate passes, fails, or could not be evaluated, which is not a pass: evidence that is missing, too
old, expired or of too few samples says nothing. Who sets a policy names the checks of a stage and
their thresholds; what is not named is not asked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.registry.comparison import Difference, Verdict, compare
from pilotage.registry.evidence import is_expired
from pilotage.registry.metrics import (
    KIND_COST,
    KIND_PERFORMANCE,
    RATIO,
    Direction,
    find_unit,
    in_unit,
)
from pilotage.registry.types import Evidence, NamedVersion, Stage

DAY_US = 86_400_000_000
MOST_CHECKS = 50
MOST_APPROVALS = 10
_DIGITS = 30  # before or behind the point of a bound
LARGEST_ARTIFACT = Decimal(1 << 40)


class GateState(StrEnum):
    """What a gate says."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_EVALUATED = "not_evaluated"


class Form(StrEnum):
    """How a check looks at a version."""

    SIZE = "size"  # of what it runs
    LICENCE = "licence"
    JUDGED = "judged"  # evidence says itself whether it passed
    REPLAYED = "replayed"  # that, and how much worse the answers may be at most
    MEASURED = "measured"  # a number within bounds
    COMPARED = "compared"  # a number against that of the version in the stage


class Kind(msgspec.Struct, frozen=True):
    """A named check: how it looks, at which evidence, and the command that supplies this."""

    form: Form
    kind: str = ""
    subject: str = ""
    unit: str = ""
    command: str = ""


_ADD = "pilotage models evidence add {ref}"
_JUDGE = f"{_ADD} --kind {{kind}} --passed"
_MEASURE = f"{_ADD} {{subject}}=VALUE"
KINDS: Mapping[str, Kind] = {
    "artifact_size": Kind(Form.SIZE, unit="bytes"),
    "scan_format": Kind(
        Form.JUDGED, "scan.format", command="pilotage models evidence list {ref} --kind {kind}"
    ),
    "licence": Kind(Form.LICENCE, "licence", command=f"{_ADD} --kind licence --subject SPDX-ID"),
    "latency_p50": Kind(Form.MEASURED, KIND_PERFORMANCE, "latency_p50", "ms", _MEASURE),
    "latency_p95": Kind(Form.MEASURED, KIND_PERFORMANCE, "latency_p95", "ms", _MEASURE),
    "latency_p99": Kind(Form.MEASURED, KIND_PERFORMANCE, "latency_p99", "ms", _MEASURE),
    "accuracy": Kind(Form.MEASURED, KIND_PERFORMANCE, "accuracy", "ratio", _MEASURE),
    "metric": Kind(Form.MEASURED, KIND_PERFORMANCE, command=_MEASURE),
    "cost": Kind(Form.MEASURED, KIND_COST, command=f"{_MEASURE} --cost"),
    "not_worse": Kind(Form.COMPARED, KIND_PERFORMANCE, command=_MEASURE),
    "evaluation": Kind(Form.JUDGED, "eval.{subject}", command=_JUDGE),
    "safety": Kind(Form.JUDGED, "eval.safety", command=_JUDGE),
    "replay": Kind(
        Form.REPLAYED,
        "replay",
        "usable",
        RATIO,
        "pilotage replay start ENDPOINT {ref} --measure {subject}",
    ),
    "no_pii": Kind(Form.JUDGED, "data.pii", command=_JUDGE),
    "security_scan": Kind(Form.JUDGED, "scan.security", command=_JUDGE),
    "cost_estimate": Kind(Form.JUDGED, "cost.estimate", command=_JUDGE),
    "card": Kind(Form.JUDGED, "card", command="pilotage models card {ref} --edit FILE.md"),
}
_NEEDS_SUBJECT = ("metric", "cost", "not_worse", "evaluation")
_OF_FILES = ("artifact_size", "scan_format")  # what others host has no file here


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A gate of a policy: which check, of what, and with which thresholds.

    ``subject`` is a metric, an evaluation suite, or what a replay marks answers by.
    ``tolerance_percent`` is how much worse than the version in the stage a metric may be. With
    ``by_interval`` the worse end of the 95 % interval counts instead of the value.
    """

    name: str
    subject: str = ""
    min: Decimal | None = None
    max: Decimal | None = None
    allowed: tuple[str, ...] = ()
    tolerance_percent: Decimal = Decimal(0)
    by_interval: bool = False
    min_n: int | None = None
    max_age_days: int | None = None

    @property
    def label(self) -> str:
        """What people call it: ``accuracy``, ``not_worse accuracy``."""
        return f"{self.name} {self.subject}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """What a stage asks of a version; revision 0 is what holds before anybody says.

    ``approvals`` is how many others must have agreed: at least one for production, always.
    """

    id: str
    rev: int
    project_id: str
    stage: Stage
    checks: tuple[Check, ...]
    approvals: int
    changed_at_us: int = 0
    changed_by: str = ""


DEFAULT_CHECKS = (Check(name="artifact_size"), Check(name="scan_format"))
DEFAULT_APPROVALS = {Stage.STAGING: 0, Stage.PRODUCTION: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFacts:
    """What the gates look at: current evidence, the size of what it runs, the baseline.

    ``baseline`` is the current evidence of ``baseline_ref``, the version that came to the stage
    last, of those in it or else of those that were; None where there never was one.
    """

    version: NamedVersion
    evidence: Sequence[Evidence]
    now_us: int
    size_bytes: int | None = None
    baseline: Sequence[Evidence] | None = None
    baseline_ref: str = ""

    @property
    def is_hosted(self) -> bool:
        """Say whether others host what it runs."""
        return self.version.artifact_sha256 is None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate says, by which number, and the command that would supply what is missing."""

    name: str
    state: GateState
    value: str = ""
    threshold: str = ""
    unit: str = ""
    evidence_id: str = ""
    detail: str = ""
    command: str = ""

    @property
    def has_passed(self) -> bool:
        """Say whether it lets the version through."""
        return self.state is GateState.PASSED


def check_policy(stage: Stage, checks: Sequence[Check], approvals: int) -> tuple[Check, ...]:
    """Return the checks of a policy; raise ``invalid_request`` for what cannot be asked."""
    if stage not in DEFAULT_APPROVALS:
        raise _refuse("stage", f"{stage} has no gates.", "Gates stand before staging, production.")
    if not DEFAULT_APPROVALS[stage] <= approvals <= MOST_APPROVALS:
        lowest = DEFAULT_APPROVALS[stage]
        raise _refuse("approvals", f"{approvals} is out of range.", f"Use {lowest} to 10.")
    if len(checks) > MOST_CHECKS or len({check.label for check in checks}) < len(checks):
        hint = f"Name each check once, up to {MOST_CHECKS}."
        raise _refuse("checks", "There are too many, or one is there twice.", hint)
    for check in checks:
        _check_one(check)
    return tuple(checks)


def assess(checks: Sequence[Check], facts: GateFacts) -> list[GateResult]:
    """Return what each gate says of a version."""
    return [evaluate(check, facts) for check in checks]


def evaluate(check: Check, facts: GateFacts) -> GateResult:
    """Return what one gate says of a version."""
    kind = KINDS[check.name]
    subject = check.subject or kind.subject
    where = kind.kind.format(subject=subject)
    if check.name in _OF_FILES and facts.is_hosted and not _find(facts.evidence, where, ""):
        return _say(check, GateState.PASSED, detail="others host it: there is no file here")
    found = _LOOKS[kind.form](check, facts, where, subject)
    if found.has_passed:
        return found
    named = {"ref": facts.version.ref, "kind": where, "subject": subject or "NAME"}
    return replace(found, command=kind.command.format(**named))


def describe_failures(results: Sequence[GateResult]) -> str:
    """Say in a sentence what did not pass: each gate with its value and its threshold."""
    said = []
    for result in results:
        if result.has_passed:
            continue
        state = "failed" if result.state is GateState.FAILED else "could not be evaluated"
        number = f"{result.value} {result.unit}".strip() if result.value else ""
        asked = f"asked for {result.threshold} {result.unit}".strip() if result.threshold else ""
        why = ", ".join(filter(None, (number, asked, result.detail)))
        said.append(f"{result.name} {state} ({why})" if why else f"{result.name} {state}")
    return "; ".join(said)


def _size(check: Check, facts: GateFacts, _kind: str, _subject: str) -> GateResult:
    limit = check.max or LARGEST_ARTIFACT
    if facts.size_bytes is None:
        return _say(check, GateState.NOT_EVALUATED, threshold=f"at most {limit}", unit="bytes")
    state = GateState.PASSED if facts.size_bytes <= limit else GateState.FAILED
    return _say(
        check, state, value=str(facts.size_bytes), threshold=f"at most {limit}", unit="bytes"
    )


def _licence(check: Check, facts: GateFacts, kind: str, _subject: str) -> GateResult:
    found = [item for item in _find(facts.evidence, kind, "") if item.subject]
    named = sorted({facts.version.license, *(item.subject for item in found)} - {""})
    threshold = f"one of {', '.join(check.allowed)}" if check.allowed else "one that is known"
    if not named:
        detail = "nothing says which licence it has"
        return _say(check, GateState.NOT_EVALUATED, threshold=threshold, detail=detail)
    allowed = {name.casefold() for name in check.allowed}
    is_allowed = not allowed or all(name.casefold() in allowed for name in named)
    flaw = next(filter(None, (_find_flaw(check, item, facts.now_us) for item in found)), "")
    if not is_allowed or any(item.passed is False for item in found):
        state, detail = GateState.FAILED, ""
    else:
        state, detail = (GateState.NOT_EVALUATED, flaw) if flaw else (GateState.PASSED, "")
    return _say(check, state, value=", ".join(named), threshold=threshold, detail=detail)


def _judged(check: Check, facts: GateFacts, kind: str, _subject: str) -> GateResult:
    """All that is current of a kind must have passed; one that failed fails it."""
    found = _find(facts.evidence, kind, "")
    if not found:
        return _say(check, GateState.NOT_EVALUATED, detail=f"there is no evidence {kind}")
    results = [_judge(check, item, facts.now_us) for item in found]
    order = (GateState.FAILED, GateState.NOT_EVALUATED, GateState.PASSED)
    return min(results, key=lambda result: order.index(result.state))


def _replayed(check: Check, facts: GateFacts, kind: str, subject: str) -> GateResult:
    """Pass what a replay shows by its own margin, if its whole interval is within the bounds.

    Whoever replays chooses the margin; the bounds are the policy's.
    """
    of_measure = [item for item in facts.evidence if item.subject == subject]
    judged = _judged(check, replace(facts, evidence=of_measure), kind, subject)
    if not judged.has_passed or (check.min, check.max) == (None, None):
        return judged
    return _measured(msgspec.structs.replace(check, by_interval=True), facts, kind, subject)


def _judge(check: Check, item: Evidence, now_us: int) -> GateResult:
    value = "" if item.value is None else str(item.value)
    flaw = _find_flaw(check, item, now_us)
    if item.passed is False:
        state, detail = GateState.FAILED, item.note
    elif flaw or item.passed is None:
        state, detail = GateState.NOT_EVALUATED, flaw or "it judges nothing"
    else:
        state, detail = GateState.PASSED, item.note
    return _say(
        check,
        state,
        value=value,
        unit=item.unit if value else "",
        evidence_id=item.id,
        detail=detail,
    )


def _measured(check: Check, facts: GateFacts, kind: str, subject: str) -> GateResult:
    unit = find_unit(subject, KINDS[check.name].unit, kind)
    bounds = [f"at least {check.min}" if check.min is not None else ""]
    bounds.append(f"at most {check.max}" if check.max is not None else "")
    threshold = " and ".join(filter(None, bounds))
    missing = _say(check, GateState.NOT_EVALUATED, threshold=threshold, unit=unit)
    found = _find(facts.evidence, kind, subject)
    if not found:
        return replace(missing, detail=f"there is no evidence {kind} of {subject}")
    item = found[0]
    low, high, flaw = _find_span(check, item, unit)
    flaw = _find_flaw(check, item, facts.now_us) or flaw
    if flaw or low is None or high is None:
        return replace(missing, evidence_id=item.id, detail=flaw)
    is_within = (check.min is None or low >= check.min) and (check.max is None or high <= check.max)
    value = _show(low) if low == high else f"{_show(low)} to {_show(high)}"
    state = GateState.PASSED if is_within else GateState.FAILED
    return replace(missing, state=state, value=value, evidence_id=item.id)


def _compared(check: Check, facts: GateFacts, kind: str, subject: str) -> GateResult:
    if facts.baseline is None:
        detail = "no other version was ever in the stage"
        return _say(check, GateState.PASSED, detail=detail)
    threshold = f"at most {check.tolerance_percent} % worse than {facts.baseline_ref}"
    missing = _say(check, GateState.NOT_EVALUATED, threshold=threshold)
    here, there = (_find(items, kind, subject) for items in (facts.evidence, facts.baseline))
    flaws = [_find_flaw(check, item, facts.now_us) for item in here]
    # how old the baseline's number may be is not asked: it was new when that version came
    flaws += [
        _find_flaw(msgspec.structs.replace(check, max_age_days=None), item, facts.now_us)
        for item in there
    ]
    if not here or not there or any(flaws):
        whose = facts.version.ref if not here else facts.baseline_ref
        detail = next(filter(None, flaws), f"there is no evidence {kind} of {subject} of {whose}")
        return replace(missing, detail=detail)
    (found,) = compare(there, here, kind)
    loss = _find_loss(found, is_worst=check.by_interval)
    if loss is None or found.a is None:
        return replace(missing, detail=_say_incomparable(found))
    is_kept = loss <= abs(found.a) * check.tolerance_percent / 100
    detail = (
        ""
        if found.low is None or found.high is None
        else (f"the difference is {_show(found.low)} to {_show(found.high)}")
    )
    return replace(
        missing,
        state=GateState.PASSED if is_kept else GateState.FAILED,
        value=f"{found.b} against {found.a}",
        unit=found.unit,
        evidence_id=here[0].id,
        detail=detail,
    )


_Look = Callable[[Check, GateFacts, str, str], GateResult]
_LOOKS: Mapping[Form, _Look] = {
    Form.SIZE: _size,
    Form.LICENCE: _licence,
    Form.JUDGED: _judged,
    Form.REPLAYED: _replayed,
    Form.MEASURED: _measured,
    Form.COMPARED: _compared,
}


def _find(evidence: Sequence[Evidence], kind: str, subject: str) -> list[Evidence]:
    return [item for item in evidence if item.kind == kind and subject in ("", item.subject)]


def _find_flaw(check: Check, item: Evidence, now_us: int) -> str:
    """Say why evidence says nothing here; empty if it does."""
    if is_expired(item, now_us):
        return "it has expired"
    age_days = (now_us - item.created_at_us) / DAY_US
    if check.max_age_days is not None and age_days > check.max_age_days:
        return f"it is {age_days:.0f} days old, {check.max_age_days} are allowed"
    if check.min_n is not None and (item.n or 0) < check.min_n:
        return f"it is of {item.n or 'unknown'} samples, {check.min_n} are needed"
    return ""


def _find_span(
    check: Check, item: Evidence, unit: str
) -> tuple[Decimal | None, Decimal | None, str]:
    """Return what a number may be: itself, or with ``by_interval`` from one end to the other."""
    ends = (item.low, item.high) if check.by_interval else (item.value, item.value)
    if None in ends:
        return None, None, "it has no interval" if check.by_interval else "it has no value"
    own = find_unit(item.subject, item.unit, item.kind)
    if own == RATIO and not unit:
        own = unit  # both are plain numbers
    low, high = (in_unit(end or Decimal(0), own, unit) for end in ends)
    wanted = unit or "that of the bound, which has none"
    return low, high, "" if low is not None else f"its unit is {own or 'not known'}, not {wanted}"


def _find_loss(found: Difference, *, is_worst: bool) -> Decimal | None:
    """Return by how much the second is worse, below 0 if it is better; None if nobody knows."""
    if found.direction is Direction.UNKNOWN:
        return None
    is_higher_better = found.direction is Direction.HIGHER
    worst = found.low if is_higher_better else found.high
    difference = worst if is_worst else found.difference
    if difference is None:
        return None
    return -difference if is_higher_better else difference


def _say_incomparable(found: Difference) -> str:
    if found.verdict is Verdict.UNLIKE:
        return "their units differ"
    if found.direction is Direction.UNKNOWN:
        return f"nobody knows whether more of {found.name} is better"
    return "one of them has no interval, or no value"


def _say(check: Check, state: GateState, **more: str) -> GateResult:
    return GateResult(name=check.label, state=state, **more)


def _show(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _check_one(check: Check) -> None:
    kind = KINDS.get(check.name)
    if kind is None:
        known = ", ".join(KINDS)
        raise _refuse("checks", f"{check.name[:40]!r} is no check.", f"There are: {known}.")
    place = f"checks.{check.label}"
    if check.name in _NEEDS_SUBJECT and not check.subject:
        raise _refuse(place, "It needs a subject.", "Name the metric, or the suite.")
    bounds = (check.min, check.max)
    if kind.form is Form.MEASURED and bounds == (None, None):
        raise _refuse(place, "It needs a bound.", "Give min or max.")
    numbers = [check.tolerance_percent, *(bound for bound in bounds if bound is not None)]
    is_bearable = all(item.is_finite() and -_DIGITS < item.adjusted() < _DIGITS for item in numbers)
    if not is_bearable or check.tolerance_percent < 0:
        raise _refuse(place, "A bound must be a number.", "Write it such as 0.95 or 250.")
    if check.min is not None and check.max is not None and check.min > check.max:
        raise _refuse(place, "Nothing is within its bounds.", "min may not be above max.")
    if any(count is not None and count < 1 for count in (check.min_n, check.max_age_days)):
        raise _refuse(place, "min_n and max_age_days are at least 1.", "Leave them out for any.")


def _refuse(param: str, problem: str, hint: str) -> PilotageError:
    return PilotageError("invalid_request", f"{param}: {problem}", hint=hint, param=param)
