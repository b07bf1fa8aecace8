"""The six questions of a deployment, answered from facts, and openly where there are none. Pure.

Every answer is a few lines of plain text: pages, the API and the command line show the same ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from pilotage.core.money import format_usd
from pilotage.governance import facts as said
from pilotage.governance.facts import Content
from pilotage.governance.types import Decision, Fact, FactKind
from pilotage.kit.clock import rfc3339

Form = TypeVar("Form", bound=Content)
LONGEST_VALUE = 300


class Missing(str):
    """What no fact says."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question, what facts say to it, and what no fact says."""

    question: str
    lines: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A decision with its facts, and the names of the people in them, by their ids."""

    decision: Decision
    facts: Sequence[Fact]
    names: Mapping[str, str]

    def each(self, kind: FactKind, form: type[Form]) -> list[Form]:
        """Return the facts of a kind, in order."""
        return [msgspec.convert(fact.content, form) for fact in self.facts if fact.kind is kind]

    def name(self, principal_id: str) -> str:
        """Return a person's name beside their id."""
        name = self.names.get(principal_id, "")
        return f"{name} ({principal_id})" if name and name != principal_id else principal_id


def answer_all(known: Known) -> tuple[Answer, ...]:
    """Return the answers to the six questions."""
    asked = (
        ("What is changing?", _say_change),
        ("Who approved it?", _say_approval),
        ("How is it deployed?", _say_deployment),
        ("What could go wrong?", _say_risk),
        ("How will we know?", _say_signs),
        ("How do we roll back?", _say_way_back),
    )
    answers = []
    for question, say in asked:
        found = list(say(known))
        lines = tuple(line for line in found if not isinstance(line, Missing))
        missing = tuple(f"No fact recorded: {line}" for line in found if isinstance(line, Missing))
        answers.append(Answer(question=question, lines=lines, missing=missing))
    return tuple(answers)


def summarise(decision: Decision) -> str:
    """Return in one line what a decision changed."""
    changes = "; ".join(_list_changes(decision.before, decision.after))
    return f"{decision.kind} {decision.subject}" + (f": {changes}" if changes else "")


def list_people(decision: Decision, facts: Sequence[Fact]) -> set[str]:
    """Return the ids of everybody that a decision and its facts name."""
    people = {decision.by, *(fact.by for fact in facts)}
    for fact in facts:
        for key in ("by", "requested_by"):
            people.add(str(fact.content.get(key, "")))
        people |= {vote["by"] for vote in fact.content.get("votes", ())}
    return people - {""}


def show_time(at_us: int) -> str:
    """Return a time as people read it, in UTC to the second."""
    return f"{rfc3339(at_us)[:19].replace('T', ' ')} UTC"


def _say_change(known: Known) -> Iterator[str]:
    decision = known.decision
    yield f"{decision.kind} of {decision.subject} ({decision.subject_id})"
    yield from _list_changes(decision.before, decision.after)
    versions = known.each(FactKind.VERSION, said.Version)
    for version in versions:
        hashed = f"artifact sha256 {version.artifact_sha256}" if version.artifact_sha256 else ""
        yield f"{version.side}: {version.version} ({version.version_id}) {hashed}".strip()
        if not hashed:
            yield Missing(f"the artifact hash of {version.version}")
    if not versions:
        yield Missing("which model versions, with their artifact hashes")


def _say_approval(known: Known) -> Iterator[str]:
    decision = known.decision
    why = decision.reason or "no reason was given"
    yield f"Made by {known.name(decision.by)}, {show_time(decision.at_us)}: {why}"
    approvals = known.each(FactKind.APPROVAL, said.Approved)
    for approval in approvals:
        asked = show_time(approval.requested_at_us)
        who = known.name(approval.requested_by)
        yield f"{approval.approval_id} asked by {who}, {asked}: {approval.reason}"
        for vote in approval.votes:
            when = show_time(vote.at_us)
            yield f"{vote.verdict} by {known.name(vote.by)} as {vote.role}, {when}: {vote.reason}"
    if not approvals:
        yield Missing("an approval; none was required, or none was used")
    for act in known.each(FactKind.INTERVENTION, said.Intervention):
        role = f" as {act.role}" if act.role else ""
        why = act.reason or "no reason was given"
        yield f"Manual intervention ({act.what}) by {known.name(act.by)}{role}: {why}"


def _say_deployment(known: Known) -> Iterator[str]:
    plans = known.each(FactKind.PLAN, said.Plan)
    for plan in plans:
        yield f"Way: {plan.way}"
        yield from (f"Step {number}: {step}" for number, step in enumerate(plan.steps, 1))
    if not plans:
        yield Missing("the way it is deployed")
    for planned in known.each(FactKind.SCHEDULE, said.Schedule):
        when, who = show_time(planned.planned_for_us), known.name(planned.requested_by)
        yield f"Planned for {when} by {who} ({planned.release_id})"
    for weights in known.each(FactKind.WEIGHTS, said.Weights):
        shares = ", ".join(f"{name} {share} %" for name, share in weights.weights.items())
        step = "" if weights.step is None else f"Step {weights.step}: "
        yield f"{step}traffic {shares} {weights.detail}".strip()
    for cost in known.each(FactKind.COST, said.Cost):
        about = "estimated" if cost.is_estimated else "measured"
        basis = f", from {cost.basis}" if cost.basis else ""
        yield f"Cost ({cost.what}): {format_usd(cost.cost_nano)} USD, {about}{basis}"


def _say_risk(known: Known) -> Iterator[str]:
    gates = known.each(FactKind.GATE, said.Gate)
    for gate in gates:
        if gate.state == "failed":
            yield f"Gate {gate.name} failed: {_measure(gate)}"
        elif gate.state == "not_evaluated":
            yield f"Gate {gate.name} was not evaluated: {gate.detail or 'no evidence'}"
    if gates and all(gate.state == "passed" for gate in gates):
        yield f"All {len(gates)} gates passed"
    if not gates:
        yield Missing("gates")
    found = known.each(FactKind.EVIDENCE, said.Evidence)
    yield from (_describe_evidence(item) for item in found)
    yield from (f"Rests on {item}" for item in known.decision.evidence)
    if not found and not known.decision.evidence:
        yield Missing("evidence")
    classes = known.each(FactKind.DATA_CLASS, said.DataClass)
    for item in classes:
        of = f" (tenants {', '.join(item.tenants)})" if item.tenants else ""
        yield f"Data class: {item.data_class}{of}"
    if not classes:
        yield Missing("the data class")
    for risk in known.each(FactKind.RISK, said.Risk):
        yield f"Risk: {risk.text} ({risk.source})" if risk.source else f"Risk: {risk.text}"


def _say_signs(known: Known) -> Iterator[str]:
    gates = known.each(FactKind.GATE, said.Gate)
    for gate in gates:
        if gate.state == "passed":
            yield f"Gate {gate.name} passed: {_measure(gate)}"
    rules = known.each(FactKind.ALERT_RULE, said.AlertRule)
    yield from (f"Alert rule {rule.name}: {rule.condition}" for rule in rules)
    if not rules:
        yield Missing("an alert rule; none is bound to this change")
    for look in known.each(FactKind.LOOK, said.Look):
        step = "" if look.step is None else f" in step {look.step}"
        yield (
            f"Look{step} at {look.metric}, n = {look.n}: {look.statistic} against {look.bound}, "
            f"{look.verdict} {look.detail}".strip()
        )
    for judged in known.each(FactKind.VERDICT, said.RolloutVerdict):
        yield f"Verdict: {judged.verdict} {judged.reason}".strip()
    for outcome in known.each(FactKind.OUTCOME, said.Outcome):
        yield f"Outcome: {outcome.state} {outcome.detail}".strip()
    yield from (f"Note: {note.text}" for note in known.each(FactKind.NOTE, said.Note))


def _say_way_back(known: Known) -> Iterator[str]:
    yield f"Before: {_show(known.decision.before)}"
    ways = known.each(FactKind.ROLLBACK, said.Rollback)
    for way in ways:
        yield f"Back to {way.to}: {way.command}"
        if way.cost_nano is None:
            yield Missing("what undoing costs")
        else:
            basis = f", from {way.cost_basis}" if way.cost_basis else ""
            yield f"Undoing costs {format_usd(way.cost_nano)} USD{basis}"
    if not ways:
        yield Missing("the command that undoes it, and what that costs")


def _measure(gate: said.Gate) -> str:
    parts = [f"{gate.value} {gate.unit}".strip() if gate.value else "no value"]
    if gate.threshold:
        parts.append(f"threshold {gate.threshold} {gate.unit}".strip())
    return ", ".join([*parts, *filter(None, (gate.evidence_id, gate.detail))])


def _describe_evidence(item: said.Evidence) -> str:
    parts = [f"Evidence {item.kind}"]
    if item.subject:
        parts.append(f"of {item.subject}")
    if item.value:
        parts.append(f"= {item.value} {item.unit}".strip())
    if item.low and item.high:
        parts.append(f"[{item.low}, {item.high}]")
    if item.n is not None:
        parts.append(f"n = {item.n}")
    parts += [f"({part})" for part in (item.evidence_id, item.hash, item.source) if part]
    return " ".join(parts)


def _list_changes(before: Any, after: Any) -> Iterator[str]:  # noqa: ANN401 - JSON of any kind
    """Yield what differs between two states, by the names of an object's parts."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                yield f"{name}: {_show(before.get(name))} -> {_show(after.get(name))}"
    elif before != after:
        yield f"{_show(before)} -> {_show(after)}"


def _show(value: Any) -> str:  # noqa: ANN401 - JSON of any kind
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
