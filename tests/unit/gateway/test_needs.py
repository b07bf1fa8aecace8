"""What is told of the calls that ask for replicas, and when."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from gateway_harness import until
from made_calls import BODY, make_arm, make_call
from pilotage.gateway import needs
from pilotage.gateway.call import Call
from pilotage.gateway.demand import TELL_AGAIN_S, Demand, DemandFile, DeploymentDemand
from pilotage.gateway.needs import Needs, sum_up
from pilotage.gateway.providers.replicas import Replicas
from pilotage.gateway.routing.breakers import Breakers
from pilotage.gateway.targets import ReplicaTarget, Targets
from pilotage.gateway.transport.upstream import Limits
from pilotage.kit.clock import ManualClock

STREAM = b'{"model":"chat","stream":true,"messages":[{"role":"user","content":"hello"}]}'
ASLEEP = make_arm("dep_s", can_wake=True)


def make_targets(*names: str, n: int = 7) -> Targets:
    return Targets(
        n=n,
        can_wake=["dep_a", "dep_b", "dep_s"],
        replicas=[
            ReplicaTarget(id=name, deployment_id=name.partition(".")[0], host="h", port=1, key="k")
            for name in names
        ],
    )


class Slot:
    """A slot's calls and replicas, and the file that it writes."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.calls: list[Call] = []
        self.replicas = Replicas(Limits(), Breakers(self.clock), self.clock)
        self.path = folder / "demand-gateway-0.json"
        file = DemandFile(folder, "gateway-0")
        self.needs = Needs(file, self.calls, self.replicas, self.clock)

    def read(self) -> Demand:
        return msgspec.json.decode(self.path.read_bytes(), type=Demand)

    def ask(self, deployment: str, *, is_stream: bool = False) -> None:
        """Have a call begin at a replica now."""
        call = make_call(body=STREAM if is_stream else BODY)
        call.started_s = self.clock.monotonic_s()
        call.asked_s = call.started_s + 0.001
        call.arm = make_arm(deployment)
        replica = self.replicas.pick(call.arm, call)
        assert replica is not None
        replica.enter()
        self.calls.append(call)


@pytest.fixture
async def slot(tmp_path: Path) -> Slot:
    return Slot(tmp_path)


async def test_calls_are_summed_up_by_deployment_and_by_replica(slot: Slot) -> None:
    slot.replicas.apply(make_targets("dep_a.0", "dep_b.0"))
    slot.ask("dep_a")
    slot.ask("dep_a", is_stream=True)
    slot.ask("dep_b")
    slot.replicas.apply(make_targets("dep_a.0", n=8))
    slot.clock.advance(0.25)
    assert sum_up(slot.calls, slot.replicas, slot.clock.monotonic_s()) == Demand(
        at_us=0,
        targets_n=8,
        deployments={
            "dep_a": DeploymentDemand(in_flight=2, oldest_wait_ms=250, calls=2),
            "dep_b": DeploymentDemand(in_flight=1, calls=1),
        },
        replicas={"dep_a.0": 2, "dep_b.0": 1},
    )
    slot.calls[1].ttft_us = 9
    summed = sum_up(slot.calls, slot.replicas, slot.clock.monotonic_s())
    assert summed.deployments["dep_a"].oldest_wait_ms == 0


async def test_a_call_that_waits_is_told_of_at_once(
    slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "TELL_EVERY_S", 3600.0)  # else it would be told a moment later
    slot.replicas.apply(make_targets())
    telling = asyncio.ensure_future(slot.needs.run())
    await until(slot.path.exists, "the first file")
    call = make_call()
    call.first_byte_timeout_s = 60.0
    waiting = asyncio.ensure_future(slot.replicas.wait(ASLEEP, call))
    await until(lambda: bool(slot.read().deployments), "a file that tells of the call")
    assert slot.read().deployments == {"dep_s": DeploymentDemand(waiting=1)}
    for task in (telling, waiting):
        task.cancel()
    await asyncio.gather(telling, waiting, return_exceptions=True)


async def test_the_same_is_told_again_only_after_a_while(slot: Slot) -> None:
    await slot.needs.tell()
    first = slot.read()
    slot.clock.advance(TELL_AGAIN_S / 2)
    await slot.needs.tell()
    assert slot.read() == first
    slot.clock.advance(TELL_AGAIN_S / 2)
    await slot.needs.tell()
    assert slot.read() == msgspec.structs.replace(first, at_us=slot.clock.now_us())
    slot.needs.close()
    assert not slot.path.exists()


async def test_a_write_that_was_under_way_does_not_come_after_the_end(slot: Slot) -> None:
    slot.needs.close()
    await slot.needs.tell()  # as a thread may that nobody waits for any more
    assert not slot.path.exists()


async def test_what_cannot_be_written_is_tried_again(
    slot: Slot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slot.path.mkdir()  # nothing can take its place
    for _ in range(3):
        await slot.needs.tell()
    assert caplog.text.count("cannot be told") == 1
    slot.path.rmdir()
    await slot.needs.tell()
    assert slot.read().at_us == slot.clock.now_us()
    assert [path.name for path in tmp_path.iterdir()] == [slot.path.name]
