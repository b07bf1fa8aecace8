"""Copies never run in greater number, nor cost more in a day, than their alias allows."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pilotage.core.snapshot import Shadow
from pilotage.gateway.routing.shadows import ShadowBounds

ALIAS = ("prj_1", "chat")
RULE = Shadow(arm="dep_b", share=10_000, concurrency=3, daily_nano=1000)


def test_what_finds_no_room_or_money_is_dropped_and_counted() -> None:
    bounds = ShadowBounds()
    assert bounds.begin(ALIAS, RULE, 600, day=1)
    assert not bounds.begin(ALIAS, RULE, 600, day=1)
    assert bounds.begin(ALIAS, RULE, 400, day=1)
    assert bounds.begin(ALIAS, RULE, 0, day=1)
    assert not bounds.begin(ALIAS, RULE, 0, day=1)
    assert (bounds.counts["begun"], bounds.counts["budget"], bounds.counts["busy"]) == (3, 1, 1)


def test_without_money_only_free_copies_are_made() -> None:
    bounds, rule_ = ShadowBounds(), Shadow(arm="dep_b", share=1)
    assert not bounds.begin(ALIAS, rule_, 1, day=1)
    assert bounds.begin(ALIAS, rule_, 0, day=1)


def test_what_was_not_used_can_be_spent_and_a_new_day_begins_anew() -> None:
    bounds = ShadowBounds()
    assert bounds.begin(ALIAS, RULE, 1000, day=1)
    bounds.end(ALIAS, 1000, 10, day=1)
    assert not bounds.begin(ALIAS, RULE, 991, day=1)
    assert bounds.begin(ALIAS, RULE, 990, day=1)
    assert bounds.begin(ALIAS, RULE, 1000, day=2)
    bounds.end(ALIAS, 990, 0, day=1)  # of yesterday: gives nothing back today
    assert not bounds.begin(ALIAS, RULE, 1, day=2)


def test_places_are_kept_over_midnight_and_idle_aliases_forgotten() -> None:
    bounds = ShadowBounds()
    for _ in range(3):
        assert bounds.begin(ALIAS, RULE, 0, day=1)
    assert not bounds.begin(ALIAS, RULE, 0, day=2)
    assert bounds.begin(("prj_1", "other"), RULE, 0, day=2)
    bounds.end(("prj_1", "other"), 0, 0, day=2)
    assert bounds.begin(("prj_2", "third"), RULE, 0, day=3)
    assert set(bounds._accounts) == {ALIAS, ("prj_2", "third")}


class AnyCopies(RuleBasedStateMachine):
    """An independent book of what runs and what was spent on which day."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = ShadowBounds()
        self.day = 1
        self.running: list[tuple[int, int]] = []
        self.spent = 0

    @rule(worst=st.integers(0, 700))
    def begin(self, worst: int) -> None:
        if self.bounds.begin(ALIAS, RULE, worst, self.day):
            self.running.append((self.day, worst))

    @rule(part=st.floats(0, 1))
    def end(self, part: float) -> None:
        if self.running:
            day, worst = self.running.pop(0)
            cost = round(worst * part)
            self.bounds.end(ALIAS, worst, cost, day)
            self.spent += cost if day == self.day else 0

    @rule()
    def sleep(self) -> None:
        self.day += 1
        self.spent = 0

    @invariant()
    def holds(self) -> None:
        assert len(self.running) <= RULE.concurrency
        held = sum(worst for day, worst in self.running if day == self.day)
        assert self.spent + held <= RULE.daily_nano


TestAnyCopies = AnyCopies.TestCase
