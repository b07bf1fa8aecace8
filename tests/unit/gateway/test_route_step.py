"""The route step: who is asked first and who after, for whom, and by which policy."""

from collections.abc import Callable
from typing import Any

import pytest

from gateway_harness import make_rates
from made_calls import PROJECT, make_alias, make_arm, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag
from pilotage.core.key_scopes import KeyScope
from pilotage.core.snapshot import (
    FULL_WEIGHT,
    ArmEntry,
    RouteRule,
    Routing,
    TenantEntry,
    choose_arm,
)
from pilotage.gateway.call import Call, Reply, Try
from pilotage.gateway.snapshots import AliasView
from pilotage.gateway.steps.route import Route
from pilotage.kit.clock import ManualClock

HALF = FULL_WEIGHT // 2


async def answer(call: Call) -> Reply:
    """Answer as a model would that is asked."""
    return Reply(body=b"".join(b"%s " % arm.id.encode() for arm in call.plan))


def never_cold(arm: ArmEntry) -> bool:
    """Say of every arm that it is not cold."""
    del arm
    return False


async def ask(alias: AliasView | None, **more: Any) -> list[str]:  # noqa: ANN401
    call = make_call(alias, **more)
    reply = await Route(answer, ManualClock(), never_cold)(call)
    assert call.arm is call.plan[0]
    return reply.body.decode().split()


async def refuse(alias: AliasView | None, **more: Any) -> PilotageError:  # noqa: ANN401
    with pytest.raises(PilotageError) as caught:
        await ask(alias, **more)
    return caught.value


async def test_a_plan_is_the_chosen_arm_and_the_fallbacks() -> None:
    arms = [make_arm("dep_a"), make_arm("dep_b", 0), make_arm("dep_c", 0)]
    alias = make_alias(*arms, routing=Routing(fallbacks=["dep_c", "dep_a", "dep_b"]))
    assert await ask(alias) == ["dep_a", "dep_c", "dep_b"]


async def test_the_unit_is_the_user_where_there_is_one_else_the_call() -> None:
    alias = make_alias(make_arm("dep_a", HALF), make_arm("dep_b", HALF))
    for n in range(30):
        chosen = choose_arm(alias.entry, f"call_{n}")
        assert chosen is not None
        assert await ask(alias, call_id=f"call_{n}") == [chosen.id]
    of_user = {(await ask(alias, call_id=f"call_{n}", user="ann"))[0] for n in range(30)}
    assert len(of_user) == 1
    of_users = {(await ask(alias, user=f"user-{n}"))[0] for n in range(30)}
    assert of_users == {"dep_a", "dep_b"}


@pytest.mark.parametrize("cold", ["dep_a", "dep_b"])
async def test_calls_of_a_rollout_say_before_they_are_dealt_that_an_arm_is_cold(cold: str) -> None:
    """Whichever arm a call is dealt: what says it is cold must not say which one it got."""
    alias = make_alias(make_arm("dep_a", HALF), make_arm("dep_b", HALF), make_arm("dep_c", 0))
    route = Route(answer, ManualClock(), lambda arm: arm.id in {cold, "dep_c"})
    flagged: dict[str, list[set[Flag]]] = {"dep_a": [], "dep_b": []}
    for n in range(40):
        call = make_call(alias, call_id=f"call_{n}")
        call.rollout = "rol_1/0"
        await route(call)
        assert call.arm is not None
        flagged[call.arm.id].append(call.flags)
    assert all(len(flags) > 5 for flags in flagged.values())
    assert all(each == {Flag.WARMING} for flags in flagged.values() for each in flags)


async def test_an_arm_without_weight_and_a_call_of_no_rollout_are_not_asked_for() -> None:
    arms = [make_arm("dep_a", HALF), make_arm("dep_b", HALF), make_arm("dep_c", 0)]
    part = make_call(make_alias(*arms))
    part.rollout = "rol_1/0"
    await Route(answer, ManualClock(), lambda arm: arm.id == "dep_c")(part)
    other = make_call(make_alias(*arms))
    await Route(answer, ManualClock(), lambda arm: True)(other)
    assert part.flags == other.flags == set()


async def test_an_unknown_model_says_which_there_are() -> None:
    error = await refuse(None, view=make_view(make_alias()))
    assert (error.code, error.param) == ("model_not_found", "model")
    assert error.hint == "There are: chat."


async def test_an_unknown_model_says_nothing_of_those_the_key_is_not_for() -> None:
    view = make_view(make_alias(), make_alias(name="salaries"))
    both = await refuse(None, view=view)
    assert both.hint == "There are: chat, salaries."
    one = await refuse(None, view=view, scope=KeyScope(aliases=("chat", "gone")))
    assert one.hint == "There are: chat."
    none = await refuse(None, view=view, scope=KeyScope(aliases=("gone",)))
    assert "none of this key's has" in (none.hint or "")


async def test_an_alias_without_traffic_has_no_replica() -> None:
    assert (await refuse(make_alias(make_arm(weight=0)))).code == "no_replica"


async def test_where_nobody_is_allowed_nobody_is_asked() -> None:
    tenant = TenantEntry(id="ten_1", name="acme", project_id=PROJECT, regions=["eu"])
    arms = [make_arm(f"dep_{n}", upstream_id="upm_1", location="us") for n in range(2)]
    alias = make_alias(*arms, routing=Routing(fallbacks=["dep_0", "dep_1"]))
    assert (await refuse(alias, tenant=tenant)).code == "no_allowed_target"
    ruled = make_alias(make_arm(), routing=Routing(rules=[RouteRule(arms=["dep_gone"])]))
    assert (await refuse(ruled)).code == "no_allowed_target"


async def test_a_rule_moves_the_calls_it_is_for() -> None:
    rules = [RouteRule(arms=["dep_b"], purposes=["audit"])]
    arms = [make_arm("dep_a"), make_arm("dep_b", 0)]
    alias = make_alias(*arms, routing=Routing(rules=rules, fallbacks=["dep_a"]))
    assert await ask(alias, purpose="audit") == ["dep_b"]
    assert await ask(alias, purpose="chat") == ["dep_a"]


async def test_the_cheapest_at_the_size_of_the_call() -> None:
    arms = [
        make_arm("dep_in", HALF, rates=make_rates("0.1", "9.0")),
        make_arm("dep_out", HALF, rates=make_rates("9.0", "0.1")),
    ]
    alias = make_alias(*arms, routing=Routing(policy="cheapest", fallbacks=["dep_in", "dep_out"]))

    async def ask_sized(output_limit: int) -> list[str]:
        call = make_call(alias)
        call.output_limit = output_limit
        return (await Route(answer, ManualClock(), never_cold)(call)).body.decode().split()

    assert await ask_sized(1) == ["dep_in", "dep_out"]
    assert await ask_sized(10_000) == ["dep_out", "dep_in"]


class Models:
    """Models that take their time on a clock that is moved by hand."""

    def __init__(self, took_s: Callable[[str], float]) -> None:
        self.clock = ManualClock()
        self.asked: list[str] = []
        self._took_s = took_s

    async def __call__(self, call: Call) -> Reply:
        assert call.arm is not None
        self.asked.append(call.arm.id)
        took_s = self._took_s(call.arm.id)
        if took_s < 0:
            raise PilotageError("upstream_error")
        self.clock.advance(took_s)
        return Reply()


FAST = Routing(policy="fastest")


async def test_calls_go_where_answers_come_soonest_and_look_elsewhere_now_and_then() -> None:
    models = Models(lambda arm_id: {"dep_a": 0.4, "dep_b": 0.1}[arm_id])
    route = Route(models, models.clock, never_cold)
    alias = make_alias(make_arm("dep_a", HALF), make_arm("dep_b", HALF), routing=FAST)
    for n in range(400):
        await route(make_call(alias, call_id=f"call_{n}"))
    assert 0.02 < models.asked.count("dep_a") / 400 < 0.10  # 5 % of them explore


async def test_an_arm_that_fails_counts_as_slow() -> None:
    models = Models(lambda arm_id: {"dep_a": -1.0, "dep_b": 3.0}[arm_id])
    route, failed = Route(models, models.clock, never_cold), 0
    alias = make_alias(make_arm("dep_a", HALF), make_arm("dep_b", HALF), routing=FAST)
    for n in range(100):
        try:
            await route(make_call(alias, call_id=f"call_{n}"))
        except PilotageError:
            failed += 1
    assert models.asked.count("dep_a") == failed
    assert 1 <= failed <= 20


async def test_an_answer_of_a_fallback_says_nothing_of_speed() -> None:
    async def fall_back(call: Call) -> Reply:
        call.tries.append(Try("dep_a", 0.0, 0.0, "upstream_error"))
        return Reply()

    route = Route(fall_back, ManualClock(), never_cold)
    alias = make_alias(make_arm("dep_a", HALF), make_arm("dep_b", HALF), routing=FAST)
    await route(make_call(alias))
    assert not any(speed.is_known for speed in route._speeds._speeds.values())


async def test_a_fault_of_the_request_says_nothing_of_the_arm() -> None:
    async def refuse_request(call: Call) -> Reply:
        raise PilotageError("invalid_request")

    route = Route(refuse_request, ManualClock(), never_cold)
    alias = make_alias(make_arm("dep_a", HALF), make_arm("dep_b", HALF), routing=FAST)
    with pytest.raises(PilotageError):
        await route(make_call(alias))
    assert not any(speed.is_known for speed in route._speeds._speeds.values())
