"""Which units count for a rollout's gates, with what, and what is known once they are counted.

What takes part is decided by what frames say of a call before its coin was tossed: copies, and
calls that a rule deals, are left out. Of a call that might have met a cold replica, of whichever
arm, only events count: what it took and cost does not, also where the arm that it was dealt is
warm. The arm is the one that was assigned, whoever answered in the end.

The coin is tossed anew at each step. So a unit that takes part in several steps counts for each
gate once a step; but bad it can be only once in a rollout, at the step where it first was: what
follows from a failure may well meet the other arm.
"""

from collections.abc import Callable, Iterable, Mapping

from pilotage.core.dealing import deal
from pilotage.core.frames import Begun, Ended, Feedback, Flag, Outcome
from pilotage.core.gates.ranks import LEAST_REFERENCE, Ranks
from pilotage.core.gates.types import Counts, Units, Values, Weight
from pilotage.core.names import SHADOW_TENANT
from pilotage.core.sketch import Sketch
from pilotage.core.snapshot import FULL_WEIGHT
from pilotage.monitoring.rollups.types import is_error
from pilotage.rollouts.measuring.types import (
    BEST_SCORE,
    Answer,
    ArmCount,
    CallCount,
    CallKey,
    GateCount,
    News,
    Span,
    Standing,
    StepCount,
    UnitSeen,
    Watched,
    WatchedGate,
)
from pilotage.rollouts.rules import STREAK
from pilotage.rollouts.types import (
    TAKEN_WARM,
    GateKind,
    Measurement,
    Progress,
    Rollout,
    Signal,
    Streak,
    Tally,
)

_MOST_IN_SPAN = 20  # of the baseline's units between two of the candidate's
_FILTERED = frozenset({"content_filter", "refusal"})
_TELLS_NOTHING_ALONE = frozenset({Outcome.LOST, Outcome.REFUSED, Outcome.DRAINING})  # a gateway's
# end, or one client's own requests, where there is no baseline to hold them against


def watch(rollout: Rollout) -> Watched:
    """Return what of a rollout decides how its calls are counted."""
    return Watched(
        rollout_id=rollout.id,
        project_id=rollout.project_id,
        baseline_id=rollout.baseline_id,
        candidate_id=rollout.candidate_id,
        weights=tuple(step.weight for step in rollout.plan.steps),
        least_us=tuple(step.least_us for step in rollout.plan.steps),
        gates=tuple(
            WatchedGate(gate.name, gate.signal, gate.kind, gate.threshold)
            for gate in rollout.plan.gates
        ),
    )


def refer_to(watched: Watched, taken: Mapping[Signal, Sketch]) -> Standing:
    """Return how a rollout begins: with what the baseline took before, where that is known.

    Any reference holds, as long as it was there before what is compared with it. Of other signals
    and too few values nothing is taken over.
    """
    return Standing(
        references={
            gate.name: taken[gate.signal]
            for gate in watched.gates
            if gate.kind is GateKind.RANKS
            and gate.signal in taken
            and taken[gate.signal].count >= LEAST_REFERENCE
        }
    )


def read_scores(feedback: Iterable[Feedback]) -> dict[CallKey, Answer]:
    """Return what was said of which calls, of each the first score; whose they are is not known."""
    found: dict[CallKey, Answer] = {}
    for said in feedback:
        key = CallKey(said.call_id, said.tenant_id)
        is_known = 0 <= said.score <= BEST_SCORE and "\x00" not in "".join(key)
        if is_known and key not in found:
            found[key] = Answer(
                *key, project_id=said.project_id, at_us=said.at_us, score=said.score
            )
    return found


def parse_step(name: str) -> tuple[str, int]:
    """Return the rollout and the number of a step that a frame carries; -1 if that is none."""
    rollout_id, _, number = name.partition("/")
    return rollout_id, int(number) if number.isdecimal() and number.isascii() else -1


class Counting:
    """Counts calls of one rollout: what is new of its steps, and what changes beside.

    ``units`` are what the units of these calls have done so far, those that are new to the rollout
    left out; they and ``standing`` change as calls are counted. ``answers`` are the calls whose
    feedback counts, where a gate looks at that.
    """

    def __init__(self, watched: Watched, standing: Standing, units: dict[str, UnitSeen]) -> None:
        self.standing = standing
        self.units = units
        self.steps: dict[int, StepCount] = {}
        self.answers: list[Answer] = []
        self._watched = watched

    def begin(self, begun: Begun) -> None:
        """Count a call, and its unit as dealt when it is the unit's first one at a step."""
        step, split = self._find_step(begun)
        if split is None or begun.tenant_id == SHADOW_TENANT:
            return
        calls = self._calls(step, deal(begun.rollout, begun.unit or begun.call_id, split))
        calls.begun += 1
        if begun.unit:
            seen = self._see(begun.unit).at(step)
            if seen.is_dealt:
                return
            seen.is_dealt = True
        calls.dealt += 1

    def end(self, ended: Ended) -> None:
        """Count a call that has ended, for whatever gates it says something to."""
        step, split = self._find_step(ended)
        if split is None:
            self._end_alone(ended, step)
            return
        if Flag.PROBE in ended.flags:
            self._probe(ended)
            return
        if is_copy(ended):
            return
        dealt = deal(ended.rollout, ended.unit or ended.call_id, split)
        is_warming = Flag.WARMING in ended.flags
        calls = self._calls(step, dealt)
        calls.ended += 1
        calls.warming += is_warming
        arm = ended.assigned or (dealt if ended.outcome is Outcome.LOST else "")
        if arm not in split:
            return
        is_candidate = self._is_candidate(arm)
        if arm != dealt:
            self._move(ended.unit, step, arm, dealt)
        self._run_on(ended, is_candidate=is_candidate)
        answer = _answer(ended, self._watched, step, is_candidate=is_candidate)
        for gate in self._watched.gates:
            is_left_out = is_warming and gate.signal in TAKEN_WARM
            value = None if is_left_out else read_signal(gate.signal, ended)
            if value is not None:
                self.count(gate, answer, value)
        if self._watched.wants_feedback:
            self.answers.append(answer)

    def score(self, answer: Answer) -> None:
        """Count what somebody said of an answer; gates look at what its score lacks of the best."""
        for gate in self._watched.gates:
            if gate.signal is Signal.FEEDBACK:
                self.count(gate, answer, BEST_SCORE - answer.score)

    def count(self, gate: WatchedGate, answer: Answer, value: int) -> None:
        """Count the value that an answer has for a gate."""
        is_event = gate.kind is GateKind.EVENTS
        is_bad = is_event and value > gate.threshold
        step, unit, is_candidate = answer.step, answer.unit, answer.is_candidate
        news = News(is_new=True, is_bad=is_bad, was_bad=False)
        if unit:
            news = self._see(unit).note(step, gate.name, is_bad=is_bad)
        if not (news.is_new or news.is_bad):
            return
        if gate.kind is GateKind.RANKS and not self._is_ranked(
            gate.name, value, is_candidate=is_candidate
        ):
            return
        counted = self._step(step).gate(gate.name).arm(is_candidate=is_candidate)
        if news.was_bad:
            counted.again += news.is_new
            counted.again_bad += news.is_bad
            return
        counted.units += news.is_new
        if not is_event:
            counted.values.add(value)
        if news.is_bad:
            counted.bad += 1
            self._note_bad(gate.name, is_candidate=is_candidate)
        if is_event and unit and news.is_new and self._watched.least_us[step]:
            counted.grow(self._watched.slice_of(step, answer.at_us))

    def _find_step(self, frame: Begun | Ended) -> tuple[int, Mapping[str, int] | None]:
        """Return the step that dealt a call, and how; nothing if no coin was tossed for it."""
        _, step = parse_step(frame.rollout)
        if frame.project_id != self._watched.project_id:
            return -1, None
        return step, self._watched.split_of(step)

    def _is_candidate(self, arm: str) -> bool:
        return arm == self._watched.candidate_id

    def _see(self, unit: str) -> UnitSeen:
        return self.units.setdefault(unit, UnitSeen())

    def _step(self, step: int) -> StepCount:
        return self.steps.setdefault(step, StepCount())

    def _calls(self, step: int, arm: str) -> CallCount:
        return self._step(step).arm(is_candidate=self._is_candidate(arm))

    def _move(self, unit: str, step: int, arm: str, dealt: str) -> None:
        """Count a unit as dealt to where it really went, though its coin says otherwise."""
        if unit:
            seen = self._see(unit).at(step)
            if seen.is_moved:
                return
            seen.is_moved = True
        self._calls(step, arm).dealt += 1
        self._calls(step, dealt).dealt -= 1

    def _probe(self, ended: Ended) -> None:
        """Note which gates would have counted a call that was made up as a bad one."""
        for gate in self._watched.gates:
            value = read_signal(gate.signal, ended)
            if gate.kind is GateKind.EVENTS and value is not None and value > gate.threshold:
                self._note_bad(gate.name, is_candidate=self._is_candidate(ended.assigned))

    def _note_bad(self, gate: str, *, is_candidate: bool) -> None:
        standing = self.standing
        (standing.candidate_seen if is_candidate else standing.baseline_seen).add(gate)

    def _is_ranked(self, gate: str, value: int, *, is_candidate: bool) -> bool:
        """Say whether a value is compared: not before the reference is frozen.

        Until then it grows by the baseline's. Neither those values nor the candidate's meanwhile
        are compared, for which arm they were of has decided what became of the reference.
        """
        reference = self.standing.references.setdefault(gate, Sketch())
        if reference.count >= LEAST_REFERENCE:
            return True
        if not is_candidate:
            reference.add(value)
        return False

    def _end_alone(self, ended: Ended, step: int) -> None:
        """Note a call while the candidate has all traffic: there is nothing to compare it with."""
        is_mine = ended.assigned == self._watched.candidate_id
        is_real = Flag.PROBE not in ended.flags and not is_copy(ended)
        tells = ended.outcome not in _TELLS_NOTHING_ALONE
        if not (self._watched.gives_all(step) and is_mine and is_real and tells):
            return
        alone, unit = self.standing.alone, ended.unit or ended.call_id
        if not is_failure(ended):
            alone.clear()
        elif unit not in alone:
            alone.append(unit)
            del alone[:-STREAK]

    def _run_on(self, ended: Ended, *, is_candidate: bool) -> None:
        """Note a call in the candidate's last ones, if they failed one and all."""
        spans = self.standing.spans
        has_failed = is_failure(ended) or ended.outcome is Outcome.LOST
        unit = ended.unit or ended.call_id
        if is_candidate and not has_failed:
            spans.clear()
        elif is_candidate:
            if all(span.unit != unit for span in spans):
                spans.append(Span(unit))
                del spans[:-STREAK]
        elif spans:
            baseline = spans[-1].baseline
            if unit in baseline or len(baseline) < _MOST_IN_SPAN:
                baseline[unit] = baseline.get(unit, False) or has_failed


def is_copy(ended: Ended) -> bool:
    """Say whether nobody waited for a call; one that was lost has no flags any more."""
    return Flag.SHADOW in ended.flags or ended.tenant_id == SHADOW_TENANT


def is_failure(ended: Ended) -> bool:
    """Say whether a call that an arm had been dealt failed, as far as anybody knows.

    What an arm refuses has failed, too: a caller got no answer that the other arm may have given.
    So has a call that another arm answered in the end: the arm that it was dealt did not.
    """
    if ended.outcome is Outcome.LOST:
        return False
    is_rescued = Flag.FELL_BACK in ended.flags and ended.arm != ended.assigned
    return is_rescued or is_error(ended.outcome) or ended.outcome is Outcome.REFUSED


def read_signal(signal: Signal, ended: Ended) -> int | None:
    """Return what a call says to a gate; None where nobody knows, or there is nothing to say.

    Events are 1 where they happened. Of a lost call only that it was lost is known; one that an arm
    refused took no time and cost nothing. A stream that never said anything let its caller wait for
    as long as it lasted. Whether an answer was filtered is known where it says why it ended.
    """
    if signal is Signal.LOST:
        return int(ended.outcome is Outcome.LOST)
    if ended.outcome is Outcome.LOST:
        return None
    if signal is Signal.ERROR:
        return int(is_failure(ended))
    read = _VALUES.get(signal)
    if read is None or ended.outcome is Outcome.REFUSED:
        return None
    value = read(ended)
    return value if value >= 0 else None


def _read_filtered(ended: Ended) -> int:
    return int(ended.finish_reason in _FILTERED) if ended.finish_reason else -1


def _read_ttft(ended: Ended) -> int:
    is_silent = ended.is_stream and ended.ttft_us < 0
    return ended.duration_us if is_silent else ended.ttft_us


_VALUES: dict[Signal, Callable[[Ended], int]] = {
    Signal.FILTERED: _read_filtered,
    Signal.LATENCY: lambda ended: ended.duration_us,
    Signal.TTFT: _read_ttft,
    Signal.COST: lambda ended: ended.cost_nano,
}


def measure(
    watched: Watched, steps: Mapping[int, StepCount], standing: Standing, now: Progress, now_us: int
) -> Measurement:
    """Return what was measured at a time, for gates to be judged by."""
    compared = {step: count for step, count in steps.items() if watched.split_of(step)}
    running = {step: count for step, count in compared.items() if step == now.step}
    calls = [(watched.weights[step], one.candidate, one.baseline) for step, one in compared.items()]
    return Measurement(
        whole={
            gate.name: _tally(gate.name, watched, compared, standing, now_us)
            for gate in watched.gates
        },
        step={
            gate.name: _tally(gate.name, watched, running, standing, now_us)
            for gate in watched.gates
        },
        first_seen=_add_up(
            (weight, Units(max(0, mine.dealt), max(0, theirs.dealt)))
            for weight, mine, theirs in calls
        ),
        begun=_add_up((weight, Units(mine.begun, theirs.begun)) for weight, mine, theirs in calls),
        ended=_add_up((weight, Units(mine.ended, theirs.ended)) for weight, mine, theirs in calls),
        left_out=_find_left_out(running.values()),
        streak=find_streak(standing, is_alone=watched.gives_all(now.step)),
        elapsed_s=max(0, now_us - now.since_us) / 1e6,
    )


def make_ranks(standing: Standing, known: Mapping[str, Ranks]) -> dict[str, Ranks]:
    """Return the frozen references of gates of ranks; those ``known`` need not be made again."""
    return {
        name: known.get(name) or Ranks(reference)
        for name, reference in standing.references.items()
        if reference.count >= LEAST_REFERENCE
    }


def find_streak(standing: Standing, *, is_alone: bool = False) -> Streak:
    """Return how many of the candidate's last units failed, and the baseline's between them.

    What the baseline did after the last of them says nothing of the same time. Once the candidate
    is alone, calls of earlier steps that end then say nothing, as there is nothing beside them.
    """
    if is_alone:
        return Streak(candidate_bad=len(standing.alone))
    between: dict[str, bool] = {}
    for span in standing.spans[:-1]:
        for unit, has_failed in span.baseline.items():
            between[unit] = between.get(unit, False) or has_failed
    return Streak(
        candidate_bad=len(standing.spans),
        baseline_units=len(between),
        baseline_bad=sum(between.values()),
    )


def _answer(ended: Ended, watched: Watched, step: int, *, is_candidate: bool) -> Answer:
    return Answer(
        call_id=ended.call_id,
        tenant_id=ended.tenant_id,
        project_id=ended.project_id,
        at_us=ended.at_us,
        rollout_id=watched.rollout_id,
        step=step,
        is_candidate=is_candidate,
        unit=ended.unit,
    )


def _tally(
    gate: str, watched: Watched, steps: Mapping[int, StepCount], standing: Standing, now_us: int
) -> Tally:
    mine = {step: (count.gates.get(gate) or GateCount()).candidate for step, count in steps.items()}
    found = [
        (watched.weights[step], count.gates.get(gate) or GateCount())
        for step, count in steps.items()
    ]
    values: dict[Weight, Values] = {}
    for weight, count in found:
        held = values.setdefault(_weigh(weight), Values(Sketch(), Sketch()))
        held.candidate.merge(count.candidate.values)
        held.baseline.merge(count.baseline.values)
    return Tally(
        units=_add_up(
            (weight, Units(count.candidate.units, count.baseline.units)) for weight, count in found
        ),
        bad=_add_up(
            (weight, Units(count.candidate.bad, count.baseline.bad)) for weight, count in found
        ),
        values=values,
        probed=gate in standing.candidate_seen and gate in standing.baseline_seen,
        again=sum(count.again for count in mine.values()),
        again_bad=sum(count.again_bad for count in mine.values()),
        young=sum(_count_young(watched, step, count, now_us) for step, count in mine.items()),
    )


def _count_young(watched: Watched, step: int, count: ArmCount, now_us: int) -> int:
    """Return how many units have been there for less than a step has to stand."""
    oldest = watched.slice_of(step, now_us - watched.least_us[step])
    return sum(units for at, units in count.born.items() if at >= oldest)


def _find_left_out(steps: Iterable[StepCount]) -> float:
    """Return the share of the calls whose values are left out."""
    calls = [calls for step in steps for calls in (step.candidate, step.baseline)]
    ended = sum(each.ended for each in calls)
    return sum(each.warming for each in calls) / ended if ended else 0.0


def _add_up(found: Iterable[tuple[int, Units]]) -> Counts:
    """Add up units by weight; steps may have the same."""
    sums: dict[Weight, Units] = {}
    for points, units in found:
        weight = _weigh(points)
        had = sums.get(weight, Units())
        sums[weight] = Units(had.candidate + units.candidate, had.baseline + units.baseline)
    return sums


def _weigh(points: int) -> Weight:
    return Weight(points, FULL_WEIGHT - points)
