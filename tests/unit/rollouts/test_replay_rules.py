"""Replays: what is sent, how answers are marked, and what a report says."""

import random
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.core.errors import PilotageError
from pilotage.core.gates.pairs import count_pairs
from pilotage.core.samples import Texts
from pilotage.registry.rules import check_evidence
from pilotage.rollouts.replay.rules import (
    check_plan,
    draft_evidence,
    is_whole,
    make_body,
    make_report,
    mark,
    read_report,
    weigh,
    write_report,
)
from pilotage.rollouts.replay.types import (
    Answer,
    Measure,
    Outcome,
    Recorded,
    ReplayPlan,
    ReplayVerdict,
    Report,
)

PLAN = ReplayPlan(project_id="prj", alias="chat", baseline="dep_a", candidate="dep_b")
NAMES = ("tiny@1.0.0", "tiny@1.1.0")
ASKED = {"messages": [{"role": "user", "content": "When?"}]}
TEXTS = Texts(body=ASKED, answer="On Monday.")
DISAGREE, DROP = 0.1, 0.03
KINDS = (("Monday", ""), ("", "Monday"), ("Monday", "Monday"))


def say(text: str, code: str = "", *, is_refusal: bool = False) -> Answer:
    return Answer(text=text, is_refusal=is_refusal, code=code, cost_nano=7)


def replay(number: int, baseline: str, candidate: str, plan: ReplayPlan = PLAN) -> Outcome:
    texts = Texts(body=ASKED | {"n": number}, answer="On Monday.")
    recorded = Recorded(id=f"smp_{number}", tenant_id="ten", texts=texts)
    return weigh(plan, recorded, say(baseline), say(candidate))


def replay_many(seed: int, pairs: int, drop: float) -> Report:
    """Replay a candidate whose answers are usable less often by ``drop``."""
    worse, better, equal = (replay(0, *each) for each in KINDS)
    coin, outcomes = random.Random(seed), []
    for _ in range(pairs):
        point = coin.random()
        is_worse = point < (DISAGREE + drop) / 2
        outcomes.append(worse if is_worse else better if point < DISAGREE else equal)
    return make_report(PLAN, NAMES, outcomes, {})


def test_a_request_leaves_nothing_to_chance() -> None:
    body = make_body("chat", Texts(body=ASKED | {"max_tokens": 5}, answer=""), 11)
    assert body == ASKED | {
        "max_tokens": 5,
        "model": "chat",
        "temperature": 0,
        "seed": 11,
        "n": 1,
        "stream": False,
    }


@pytest.mark.parametrize(
    ("answer", "marks"),
    [
        (say("On Monday."), (1000, 1000, 1000)),
        (say("on monday."), (1000, 1000, 0)),
        (say("", "upstream_error"), (0, 0, 0)),
        (say("I cannot say.", is_refusal=True), (0, 0, 0)),
    ],
)
def test_marks(answer: Answer, marks: tuple[int, int, int]) -> None:
    found = mark(TEXTS, answer)
    assert tuple(found[measure] for measure in Measure) == marks


def test_json_that_was_asked_for_has_to_be_json() -> None:
    asked = Texts(body=ASKED | {"response_format": {"type": "json_schema"}}, answer="{}")
    assert mark(asked, say("On Monday."))[Measure.USABLE] == 0
    assert mark(asked, say('{"day": 1}'))[Measure.USABLE] == 1000


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"samples": 0}, "samples"),
        ({"samples": 5_001}, "samples"),
        ({"margin": 0.0}, "margin"),
        ({"cap_nano": 0}, "max_cost"),
        ({"candidate": "dep_a"}, "candidate"),
    ],
)
def test_a_plan_that_shows_nothing_is_refused(change: dict[str, Any], param: str) -> None:
    check_plan(PLAN)
    with pytest.raises(PilotageError) as refused:
        check_plan(replace(PLAN, **change))
    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


def test_that_neither_answers_is_no_sign_of_being_as_good() -> None:
    report = make_report(PLAN, NAMES, [replay(number, "", "") for number in range(500)], {})
    assert report.verdict is ReplayVerdict.UNDECIDED
    assert report.measures[PLAN.measure].not_worse == 0.0


def test_the_same_inputs_have_the_same_hash_and_any_other_another() -> None:
    said = [("Monday", "Monday"), ("Monday", ""), ("Monday", "Tuesday")]
    outcomes = [replay(number, *each) for number, each in enumerate(said)]
    report = make_report(PLAN, NAMES, outcomes, {"not allowed": 1})
    assert is_whole(report)
    assert make_report(PLAN, NAMES, outcomes[::-1], {"not allowed": 1}) == report
    assert read_report(write_report(report)) == report
    others = [
        make_report(replace(PLAN, seed=1), NAMES, outcomes, {"not allowed": 1}),
        make_report(PLAN, NAMES, outcomes, {}),
        make_report(PLAN, NAMES, [*outcomes[:2], replay(2, "Monday", "Wed.")], {"not allowed": 1}),
        make_report(PLAN, ("other@1.0.0", NAMES[1]), outcomes, {"not allowed": 1}),
    ]
    assert len({report.hash, *(other.hash for other in others)}) == 5
    assert not is_whole(replace(report, pairs=4))
    assert is_whole(replace(report, candidate_nano=report.candidate_nano + 1))


def test_a_report_counts_what_failed_and_what_it_cost() -> None:
    recorded = Recorded(id="smp", tenant_id="ten", texts=TEXTS)
    outcome = weigh(PLAN, recorded, say("Monday"), say("", "upstream_error"))
    report = make_report(PLAN, NAMES, [outcome], {})
    assert (report.baseline_failed, report.candidate_failed) == (0, 1)
    assert (report.baseline_nano, report.candidate_nano) == (7, 7)
    found = report.measures[Measure.USABLE]
    assert (found.baseline, found.candidate, found.difference) == (1.0, 0.0, -1.0)
    assert found.needed is None
    assert report.verdict is ReplayVerdict.UNDECIDED


def test_without_a_single_pair_there_is_no_report() -> None:
    with pytest.raises(PilotageError, match="2 not allowed"):
        make_report(PLAN, NAMES, [], {"not allowed": 2})
    with pytest.raises(PilotageError, match="none is kept"):
        make_report(PLAN, NAMES, [], {})


def test_equal_answers_are_shown_to_be_not_worse() -> None:
    outcomes = [replay(number, "Monday", "Monday") for number in range(200)]
    report = make_report(PLAN, NAMES, outcomes, {})
    assert report.verdict is ReplayVerdict.NOT_WORSE
    draft = draft_evidence("rpl_1", report, judges=True)
    check_evidence(draft)
    assert (draft.kind, draft.subject, draft.passed) == ("replay", "usable", True)
    assert (draft.n, draft.value, draft.hash) == (200, Decimal("0.0"), report.hash)
    assert draft.note == "not_worse than tiny@1.0.0 by a margin of 0.03"
    chosen = draft_evidence("rpl_1", report, others=2, judges=True)
    check_evidence(chosen)
    assert chosen.note.endswith("; one of 3 reports of it, which err with up to 15% together")


@pytest.mark.parametrize("said", ["Monday", ""])
def test_a_comparison_with_what_does_not_serve_judges_nothing(said: str) -> None:
    outcomes = [replay(number, "Monday", said) for number in range(200)]
    draft = draft_evidence("rpl_1", make_report(PLAN, NAMES, outcomes, {}), judges=False)
    check_evidence(draft)
    assert draft.passed is None
    assert draft.note.endswith("; another deployment has more traffic")


@pytest.mark.slow
def test_a_drop_of_three_points_is_found_at_the_stated_number_of_pairs() -> None:
    stated = count_pairs(DROP, DISAGREE)
    reports = [replay_many(seed, stated, DROP) for seed in range(60)]
    found = sum(report.verdict is ReplayVerdict.WORSE for report in reports)
    assert found / 60 >= 0.9
    assert draft_evidence("rpl_1", reports[0], judges=True).passed is False
    needed = [report.measures[Measure.USABLE].needed for report in reports]
    assert all(each is not None and 0.8 * stated < each < 1.2 * stated for each in needed)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1, max_size=12))
def test_every_report_is_sound(said: list[tuple[str, str]]) -> None:
    outcomes = [replay(number, *each) for number, each in enumerate(said)]
    report = make_report(PLAN, NAMES, outcomes, {})
    assert is_whole(report)
    check_evidence(draft_evidence("rpl_1", report, judges=True))
    for found in report.measures.values():
        assert -1 <= found.low <= found.high <= 1
        assert found.difference == pytest.approx(found.candidate - found.baseline, abs=1e-8)
