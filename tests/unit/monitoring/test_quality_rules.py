"""What feedback says, and what opinions add up to: with an interval, or not at all."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import make_call
from pilotage.core.frames import Feedback
from pilotage.finops.rules import make_charge
from pilotage.monitoring.quality.rules import (
    UNKNOWN_KEPT_US,
    WAITS_US,
    add_up,
    estimate,
    gather,
    make_opinions,
    settle,
)
from pilotage.monitoring.quality.types import LABELS, Aspect, Estimate, FeedbackState, Tally


def say(score: int = -1, label: str = "", call_id: str = "call_1", **more: object) -> Feedback:
    values: dict[str, object] = {
        "call_id": call_id,
        "at_us": 5,
        "feedback_id": "fbk_1",
        "project_id": "prj_1",
        "tenant_id": "ten_1",
        "key_id": "key_1",
        "score": score,
        "label": label,
    }
    return Feedback(**(values | more))  # type: ignore[arg-type]


@given(st.permutations(range(5)))
def test_the_last_opinion_on_a_call_and_aspect_counts(order: list[int]) -> None:
    frames = [
        say(1, "correct", comment=b"one"),
        say(2, "wrong", feedback_id="fbk_2"),
        say(3, "toxic", feedback_id="fbk_3"),
        say(label="harmless", feedback_id="fbk_4"),
        say(9, at_us=4, feedback_id="fbk_5", comment=b"none"),
    ]
    found = make_opinions([frames[place] for place in order])
    assert {one.aspect: (one.id, one.score, one.label, one.comment) for one in found} == {
        Aspect.SCORE: ("fbk_3", 3, "", None),
        Aspect.ACCURACY: ("fbk_2", None, "wrong", None),
        Aspect.TOXICITY: ("fbk_4", None, "harmless", None),
        Aspect.COMMENT: ("fbk_1", None, "", b"one"),
    }


def test_feedback_is_put_together_of_what_is_left_of_it() -> None:
    whole = make_opinions([say(1, "correct", comment=b"c")])
    rest = make_opinions([say(label="wrong", feedback_id="fbk_2", call_id="call_2")])
    more = make_opinions([say(5, feedback_id="fbk_3", call_id="call_3")])
    found = gather([*whole, *rest, *more], 2)
    assert [(one.id, one.score, one.label, one.comment) for one in found] == [
        ("fbk_1", 1, "correct", b"c"),
        ("fbk_2", None, "wrong", None),
    ]


def test_an_opinion_waits_ever_longer_until_there_is_no_such_call() -> None:
    [waiting] = make_opinions([say(1)])
    looks, now_us = 0, 0
    while waiting.state is FeedbackState.WAITING:
        waiting = settle(waiting, None, now_us)
        assert waiting.due_us > now_us
        now_us, looks = waiting.due_us, looks + 1
    assert waiting.state is FeedbackState.UNKNOWN
    assert now_us == WAITS_US + UNKNOWN_KEPT_US
    assert looks < 30


def test_calls_and_tenants_are_apart() -> None:
    assert len(make_opinions([say(1), say(1, call_id="call_2"), say(1, tenant_id="ten_2")])) == 3


@pytest.mark.parametrize("frame", [say(1_000_001), say(-2), say(1, at_us=-1), say(1, at_us=2**60)])
def test_what_no_table_holds_is_left_out(frame: Feedback) -> None:
    assert make_opinions([frame]) == []


def test_no_score_is_none_and_an_unknown_label_judges_nothing() -> None:
    [found] = make_opinions([say(label="thumbs-up\x00")])
    assert (found.score, found.aspect) == (None, Aspect.ANY)
    assert found.label == "thumbs-up\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("score", "tenant_id", "state", "is_counted"),
    [
        (5, "ten_1", FeedbackState.MATCHED, True),
        (-1, "ten_1", FeedbackState.MATCHED, False),
        (5, "ten_2", FeedbackState.UNKNOWN, False),
    ],
)
def test_an_opinion_counts_if_the_call_was_its_own_tenants(
    score: int, tenant_id: str, state: FeedbackState, is_counted: bool
) -> None:
    [waiting] = make_opinions([say(score, "" if score >= 0 else "wrong")])
    call = make_call(call_id="call_1", project_id="prj_1", tenant_id=tenant_id, alias="chat")
    settled = settle(waiting, make_charge(call, "ledger"), 7)
    assert (settled.state, settled.is_counted) == (state, is_counted)
    assert settled.alias == ("chat" if state is FeedbackState.MATCHED else "")
    assert settled.due_us > 7


def test_of_nothing_there_is_no_estimate() -> None:
    assert estimate(0, 0) is None


@pytest.mark.parametrize(
    ("total", "n", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (95, 100, 0.88825, 0.97846)],
)
def test_intervals_are_wilsons(total: float, n: int, low: float, high: float) -> None:
    found = estimate(total, n)
    assert found is not None
    assert (found.value, found.n) == (total / n, n)
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.floats(0, n), st.just(n))))
def test_an_interval_holds_its_value(given_: tuple[float, int]) -> None:
    found = estimate(*given_)
    assert found is not None
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9])
def test_nineteen_of_twenty_intervals_hold_the_truth(share: float) -> None:
    chance = random.Random(20261121)
    held = 0
    for _ in range(2000):
        found = estimate(sum(chance.random() < share for _ in range(100)), 100)
        assert found is not None
        held += found.low <= share <= found.high
    assert held >= 1860  # 93 %: Wilson's intervals reach 95 % on average over shares


def tally(label: str, opinions: int, scored: int = 0, score_sum: int = 0) -> Tally:
    return Tally("prj_1", ("chat",), label, opinions, scored, score_sum)


def test_labels_become_shares_and_scores_a_mean() -> None:
    tallies = [tally("correct", 3), tally("wrong", 1, 1, 250_000), tally("nice", 2, 2, 1_500_000)]
    [found] = add_up(tallies)
    assert found.accuracy is not None
    assert (found.accuracy.value, found.accuracy.n) == (0.75, 4)
    assert found.feedback_score is not None
    assert found.feedback_score.value == pytest.approx(1.75 / 3)
    assert found.feedback_score.n == 3
    assert found.hallucination_rate is found.toxicity_score is found.validation_pass_rate is None


@pytest.mark.parametrize("label", list(LABELS))
def test_every_label_counts_for_its_metric(label: str) -> None:
    aspect, counts_one = LABELS[label]
    [found] = add_up([tally(label, 7)])
    judged: Estimate | None = getattr(found, aspect.value)
    assert judged is not None
    assert (judged.value, judged.n) == (float(counts_one), 7)


def test_groups_are_apart_and_in_order() -> None:
    other = Tally("prj_1", ("aside",), "correct", 1, 0, 0)
    assert [found.group for found in add_up([tally("wrong", 1), other])] == [("aside",), ("chat",)]
