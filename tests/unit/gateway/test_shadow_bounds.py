"""Copies never run in greater number than their alias allows; their money is a limit's of a day."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from made_calls import PROJECT, make_alias, make_arm
from pilotage.core.snapshot import Shadow
from pilotage.gateway.routing.shadows import ShadowBounds, make_budget

ALIASES = (("prj_1", "chat"), ("prj_1", "mail"), ("prj_2", "chat"))
MOST = 3


def test_the_money_is_that_of_an_alias_on_a_day_whoever_calls() -> None:
    rule_ = Shadow(arm="dep_b", share=10_000, daily_nano=1000)
    budget = make_budget(make_alias(make_arm()).entry, rule_)
    assert (budget.measure, budget.amount, budget.per) == ("cost", 1000, "day")
    assert (budget.project_id, budget.alias, budget.tenant_id, budget.key_id, budget.user) == (
        PROJECT,
        "chat",
        "",
        "",
        "",
    )
    other = make_budget(make_alias(make_arm(), name="mail").entry, rule_)
    assert other.id != budget.id
    assert "|" not in budget.id


class AnyCopies(RuleBasedStateMachine):
    """An independent book of what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = ShadowBounds()
        self.book: list[tuple[str, str]] = []
        self.refused = 0

    @rule(alias=st.sampled_from(ALIASES))
    def begin(self, alias: tuple[str, str]) -> None:
        may_begin = self.book.count(alias) < MOST
        assert self.bounds.enter(alias, MOST) is may_begin
        self.book += [alias] if may_begin else []
        self.refused += not may_begin

    @rule()
    def end(self) -> None:
        if self.book:
            self.bounds.leave(self.book.pop(0))

    @invariant()
    def holds(self) -> None:
        assert self.bounds.running == {one: self.book.count(one) for one in self.book}
        assert self.bounds.counts["busy"] == self.refused


TestAnyCopies = AnyCopies.TestCase
