"""Rollouts with real processes: what is worse goes back by itself, and no caller pays for the move.

The models are servers of live_rollouts.py that behave as told; gateway, control process and
supervisor are what ``pilotage up`` starts.
"""

from pathlib import Path

import pytest

from live_rollouts import (
    BASELINE,
    CANDIDATE,
    ENDPOINT,
    SECOND_US,
    Behaviour,
    Callers,
    Lab,
    at_us,
    check_recorded,
    open_lab,
    step,
)
from system import poll

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(300)]

AFTER_CALLS = 100  # made after a rollback, to see who answers them


async def check_rolled_back(lab: Lab, rollout_id: str, callers: Callers, *gates: str) -> None:
    """Check that a candidate went back by evidence of some gates, at once, and cost no call."""
    seen = await lab.wait_for(rollout_id, "rolled_back", "promoted", "failed")
    assert seen["state"] == "rolled_back", seen
    await lab.wait_answered(callers, len(callers.said) + AFTER_CALLS)
    await lab.quiet()
    looks = await lab.list_looks(rollout_id)
    last = looks[-1]
    assert (last["verdict"], last["cause"]) == ("roll_back", "evidence"), last
    assert set(last["decided_by"]) & set(gates), last
    verdict_us = at_us(last["at"])
    late_us = lab.candidate.asked_us[-1] - verdict_us
    mine = next(gate for gate in last["gates"] if gate["gate"] in last["decided_by"])
    print(
        f"{'+'.join(last['decided_by'])}: rolled back after "
        f"{mine['candidate_units']} + {mine['baseline_units']} units, "
        f"{(verdict_us - at_us(looks[0]['at'])) / SECOND_US:.1f} s after the first look; the "
        f"candidate's last call came {late_us / SECOND_US:+.2f} s from the verdict; "
        f"{callers.count_failed()} of {len(callers.said)} calls failed, "
        f"{count_moved(callers)} by the move"
    )
    assert late_us <= SECOND_US
    assert count_moved(callers) == 0
    assert await lab.read_weight() == 0
    after = [said for said in callers.said if said.began_us > verdict_us + SECOND_US]
    assert after
    assert {(said.status, said.model) for said in after} == {(200, BASELINE)}
    await check_recorded(lab.control, seen)


def count_moved(callers: Callers) -> int:
    """Return how many calls failed although the model that they were dealt to did not fail them."""
    failed = [said for said in callers.said if said.status != 200]
    return sum((said.model, said.code) != (CANDIDATE, "upstream_error") for said in failed)


async def test_a_candidate_that_fails_every_third_call_goes_back(tmp_path: Path) -> None:
    async with open_lab(tmp_path / "data", candidate=Behaviour(failing=0.3)) as lab:
        callers = lab.call()
        await lab.wait_answered(callers, 100)
        rollout = await lab.start(steps=[step("10%"), step("50%")])
        await check_rolled_back(lab, rollout, callers, "error")
        failed = {said.code for said in callers.said if said.status != 200}
        assert failed == {"upstream_error"}


async def test_a_candidate_that_is_40_percent_slower_goes_back(tmp_path: Path) -> None:
    async with open_lab(
        tmp_path / "data",
        baseline=Behaviour(delay_ms=400, spread=0.2),
        candidate=Behaviour(delay_ms=1.4 * 400, spread=0.2),
    ) as lab:
        callers = lab.call(rate_hz=40.0)
        await lab.wait_answered(callers, 100)
        rollout = await lab.start(
            steps=[step("25%"), step("50%")], gates={"slow": {"over": "600ms"}}
        )
        await check_rolled_back(lab, rollout, callers, "latency", "slow")
        assert callers.count_failed() == 0


async def test_a_candidate_that_costs_three_times_as_much_goes_back(tmp_path: Path) -> None:
    async with open_lab(tmp_path / "data", prices={CANDIDATE: ("3", "12")}) as lab:
        callers = lab.call()
        await lab.wait_answered(callers, 100)
        rollout = await lab.start(
            steps=[step("25%"), step("50%")], gates={"cost": {"cap": "0.0005"}}
        )
        await check_rolled_back(lab, rollout, callers, "cost")
        assert callers.count_failed() == 0


async def test_an_outage_of_both_rolls_nothing_back(tmp_path: Path) -> None:
    async with open_lab(tmp_path / "data") as lab:
        callers = lab.call()
        await lab.wait_answered(callers, 100)
        rollout = await lab.start(steps=[step("50%", approval=True)])
        await lab.wait_for(rollout, "running")
        await lab.wait_answered(callers, len(callers.said) + 200)
        for upstream in (lab.baseline, lab.candidate):
            upstream.behaviour.failing = 1.0
        before = callers.count_failed()
        looks = await poll(
            lambda: lab.list_looks(rollout),
            lambda found: any(look["cause"] == "shared_fault" for look in found),
        )
        assert callers.count_failed() - before > 20
        for upstream in (lab.baseline, lab.candidate):
            upstream.behaviour.failing = 0.0
        await poll(lambda: lab.show(rollout), lambda seen: seen["look"]["cause"] != "shared_fault")
        seen = await lab.show(rollout)
        assert seen["state"] in ("running", "held"), seen
        assert await lab.read_weight() == 50
        assert not any(look["verdict"] == "roll_back" for look in looks)
        failed = callers.count_failed() - before
        print(f"both failed {failed} calls: {seen['state']}, {seen['percent']:g} %")


async def test_a_candidate_as_good_gets_all_the_traffic(tmp_path: Path) -> None:
    async with open_lab(tmp_path / "data") as lab:
        callers = lab.call()
        gates = {"latency": None, "cost": None, "error": {"limit": "5%"}, "lost": {"limit": "5%"}}
        rollout = await lab.start(steps=[step("50%")], gates=gates)
        seen = await lab.wait_for(rollout, "promoted", "rolled_back")
        assert seen["state"] == "promoted", seen
        await lab.wait_answered(callers, len(callers.said) + AFTER_CALLS)
        await lab.quiet()
        assert callers.count_failed() == 0
        assert await lab.read_weight() == 100
        assert callers.said[-1].model == CANDIDATE
        await check_recorded(lab.control, seen)
        units = sum(len(upstream.asked_us) for upstream in (lab.baseline, lab.candidate))
        print(f"promoted to 100 % of {ENDPOINT}; {units} calls, none failed")
