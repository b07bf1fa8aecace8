"""kill -9 of control process, gateway and engine in each state of a rollout: it goes on.

Whatever dies, the endpoint's weights stay what the rollout's row says, each of them is in the
decision record, and units are counted as often as there were calls: once.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway_harness import until
from live_rollouts import ENDPOINT, Lab, check_recorded, open_lab
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Begun, decode_frame
from pilotage.kit.spool_reader import read_records
from system import System, add_model, poll, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONTROL, GATEWAY, ENGINE = (
    "pilotage.server.process",
    "pilotage.runtime.gateway",
    "llamacpp.child",
)
OLD, NEW = "tiny@1.0.0", "tiny@2.0.0"
RATE_HZ = 20.0
FLOORS = {
    "latency": None,
    "cost": None,
    "error": {"limit": "20%"},
    "lost": {"limit": "20%"},
}


async def kill(system: System, module: str) -> None:
    """Kill -9 a process and wait for its successor."""
    old = system.child(module)
    old.kill()
    await system.replaced(old, module)
    await system.wait_ready()


async def check_weights(system: System, rollout_id: str) -> dict[str, Any]:
    """Wait until the control process answers again; the endpoint has the weights of the row."""

    async def look() -> dict[str, Any] | None:
        try:
            async with system.control() as control:
                endpoint = await control.get(f"/endpoints/{ENDPOINT}")
                return {**await control.get(f"/rollouts/{rollout_id}"), "there": endpoint}
        except PilotageError as away:
            if away.code != "unavailable":
                raise
            return None

    seen = await poll(look, bool)
    assert seen is not None
    shares = {item["model"]: item["percent"] for item in seen["there"]["deployments"]}
    assert shares[seen["candidate"]] == seen["percent"], seen
    return seen


async def act(system: System, rollout_id: str, verb: str) -> None:
    """Move a rollout by hand."""
    async with system.control() as control:
        await control.post(f"/rollouts/{rollout_id}:{verb}", {"reason": "because of the test"})


async def wait_state(system: System, rollout_id: str, *states: str) -> dict[str, Any]:
    """Wait until a rollout is in one of some states."""

    async def look() -> dict[str, Any]:
        async with system.control() as control:
            return await control.get(f"/rollouts/{rollout_id}")

    return await poll(look, lambda seen: seen["state"] in states)


async def kill_all(lab: Lab, rollout_id: str, state: str) -> None:
    """Kill gateway and control process in turn; the rollout stands where it stood."""
    for victim in (CONTROL, GATEWAY):
        await kill(lab.system, victim)
        seen = await check_weights(lab.system, rollout_id)
        assert seen["state"] == state, (victim, seen)


async def test_control_process_and_gateway_die_in_every_state_with_traffic(tmp_path: Path) -> None:
    async with open_lab(tmp_path / "data") as lab:
        system = lab.system
        callers = lab.call(rate_hz=RATE_HZ)
        await lab.wait_answered(callers, 20)
        patient = {"weight": "30%", "at_least": "1h"}
        rollout = await lab.start(steps=[patient], gates=FLOORS, keep_warm="1h")
        await lab.wait_for(rollout, "running")
        await kill_all(lab, rollout, "running")
        await act(system, rollout, "hold")
        await kill_all(lab, rollout, "held")
        await act(system, rollout, "resume")
        await wait_state(system, rollout, "running")
        await lab.quiet()
        dealt = len(list_dealt(lab, rollout))
        counted = await count_units(lab, rollout, dealt)
        await act(system, rollout, "promote")
        await wait_state(system, rollout, "keeping")
        await kill_all(lab, rollout, "keeping")
        await act(system, rollout, "rollback")
        await kill_all(lab, rollout, "rolled_back")
        seen = await check_weights(system, rollout)
        async with system.control() as control:
            await check_recorded(control, seen)
        broken = [said for said in callers.said if said.status != 200]
        print(f"{counted} units of {dealt} calls; {len(broken)} calls broke with their gateway")
        assert counted == dealt
        assert {said.status for said in broken} <= {0}


async def count_units(lab: Lab, rollout_id: str, expected: int) -> int:
    """Return how many units the gate of lost calls has counted, at the end.

    Waits until they are as many as expected. A control process that begins anew after that would
    count again what it has not noted.
    """

    async def look() -> int:
        async with lab.system.control() as control:
            seen = await control.get(f"/rollouts/{rollout_id}")
        (gate,) = [each for each in seen["look"]["gates"] if each["gate"] == "lost"]
        return int(gate["candidate_units"]) + int(gate["baseline_units"])

    await poll(look, lambda units: units >= expected)
    await kill(lab.system, CONTROL)
    await check_weights(lab.system, rollout_id)
    return await look()


def list_dealt(lab: Lab, rollout_id: str) -> set[str]:
    """Return the ids of the calls that began at the first step, as spools have them."""
    frames = [
        decode_frame(payload)
        for slot in lab.system.folder.spool.iterdir()
        for _, payload in read_records(slot, 0, 10_000_000)
    ]
    return {
        frame.call_id
        for frame in frames
        if isinstance(frame, Begun) and frame.rollout == f"{rollout_id}/0"
    }


@asynccontextmanager
async def open_engines(path: Path, tiny_gguf: Path) -> AsyncIterator[System]:
    """Run an installation whose baseline is a replica of this machine."""
    async with running(path) as system:
        async with system.control() as control:
            for version in (OLD, NEW):
                await add_model(control, tiny_gguf, *version.split("@"))
            await control.post("/endpoints", {"name": ENDPOINT})
            await control.post("/prices", {"subject": "tiny", "input": "0.5", "output": "1.5"})
            deployed = {"model": OLD}
            await control.finish(await control.post(f"/endpoints/{ENDPOINT}/deployments", deployed))
        yield system


async def test_everything_dies_while_a_candidate_prepares_and_then_its_engine(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    async with open_engines(tmp_path / "data", tiny_gguf) as system:
        old = system.child(ENGINE)
        async with system.control() as control:
            await control.post(f"/endpoints/{ENDPOINT}/deployments", {"model": NEW})
        starting = await find_other(system, old)
        starting.suspend()  # a model that takes its time to load
        rollout = await begin(system)
        for victim in (CONTROL, GATEWAY):
            await kill(system, victim)
            seen = await check_weights(system, rollout)
            assert (seen["state"], seen["percent"]) == ("preparing", 0), (victim, seen)
        starting.kill()
        seen = await wait_state(system, rollout, "running")
        assert seen["percent"] == 30
        await kill_engines(system)
        seen = await check_weights(system, rollout)
        assert (seen["state"], seen["percent"]) == ("running", 30), seen
        await act(system, rollout, "rollback")
        await wait_state(system, rollout, "rolled_back")
        assert (await check_weights(system, rollout))["percent"] == 0


async def test_engines_die_while_a_rollout_is_held_and_while_the_old_one_is_kept(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    async with open_engines(tmp_path / "data", tiny_gguf) as system:
        async with system.control() as control:
            deployed = await control.post(f"/endpoints/{ENDPOINT}/deployments", {"model": NEW})
            await control.finish(deployed)
        rollout = await begin(system)
        await wait_state(system, rollout, "running")
        for verb, state, percent in (("hold", "held", 30), ("promote", "keeping", 100)):
            await act(system, rollout, verb)
            await kill_engines(system)
            seen = await check_weights(system, rollout)
            assert (seen["state"], seen["percent"]) == (state, percent), seen
        await act(system, rollout, "rollback")
        seen = await check_weights(system, rollout)
        assert (seen["state"], seen["percent"]) == ("rolled_back", 0)
        print(f"{seen['candidate']} went back to {seen['baseline']}: {seen['said']}")


async def begin(system: System) -> str:
    """Start a rollout of the new version that only people move; return its id."""
    body = {"endpoint": ENDPOINT, "candidate": NEW, "reason": "a live test", "gates": FLOORS}
    steps = [{"weight": "30%", "at_least": "1h"}]
    async with system.control() as control:
        made = await control.post("/rollouts", {**body, "steps": steps, "keep_warm": "1h"})
    return str(made["id"])


async def find_other(system: System, old: psutil.Process) -> psutil.Process:
    """Wait for another engine process."""

    def others() -> list[psutil.Process]:
        return [child for child in system.children(ENGINE) if child.pid != old.pid]

    await until(lambda: bool(others()), "a second engine")
    return others()[0]


async def kill_engines(system: System) -> None:
    """Kill -9 every engine and wait until the endpoint is served again."""
    before = system.children(ENGINE)
    for engine in before:
        engine.kill()
    await until(
        lambda: (
            len({child.pid for child in system.children(ENGINE)} - {e.pid for e in before})
            == len(before)
        ),
        "new engines",
    )
    await system.wait_served(ENDPOINT)
