"""Probes: a failed call and a lost one of each arm, once for each step that a process serves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from calls import open_writer
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Ended, Flag, Outcome, decode_frame
from pilotage.core.snapshot import AliasEntry, ArmEntry, KeyTable, Manifest
from pilotage.core.usage import Rates
from pilotage.gateway.probes import Probes
from pilotage.gateway.snapshots import AliasView, SnapshotView
from pilotage.kit.clock import ManualClock
from pilotage.kit.spool import SpoolWriter
from pilotage.kit.spool_reader import read_records

FREE = Rates(price_id="pri", input=0, output=0, cache_read=0, cache_write=0, reasoning=0)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolWriter]:
    with open_writer(tmp_path) as writer:
        yield writer


def make_view(*steps: str, weights: tuple[int, int] = (9_000, 1_000)) -> SnapshotView:
    arms = [
        ArmEntry(
            id=f"dep_{number}",
            weight=weight,
            version_id=f"ver_{number}",
            model="tiny",
            context_tokens=100,
            rates=Rates(
                price_id="pri", input=0, output=0, cache_read=0, cache_write=0, reasoning=0
            ),
        )
        for number, weight in enumerate(weights)
    ]
    aliases = {
        ("prj", f"chat-{number}"): AliasView(
            AliasEntry(
                project_id="prj",
                name=f"chat-{number}",
                created_at_us=0,
                salt=step,
                max_output_tokens=10,
                arms=arms,
                rollout=step,
            )
        )
        for number, step in enumerate(steps)
    }
    manifest = Manifest(
        n=3, parent="", created_at_us=0, expires_at_us=9, oldest_gateway=4, covers=0, sections={}
    )
    empty = KeyTable(b"")
    return SnapshotView(
        manifest=manifest,
        tenants={},
        aliases=aliases,
        revoked=frozenset(),
        base=empty,
        delta=empty,
    )


def read_probes(folder: Path) -> list[Ended]:
    frames = [decode_frame(payload) for _, payload in read_records(folder / "gateway-0", 0, 100)]
    return [frame for frame in frames if isinstance(frame, Ended)]


def test_each_arm_with_weight_has_a_failed_call_and_a_lost_one(
    spool: SpoolWriter, tmp_path: Path, clock: ManualClock
) -> None:
    probes = Probes(spool, clock)
    probes.send(make_view("", weights=(9_000, 1_000)))
    assert read_probes(tmp_path) == []
    probes.send(make_view("rol_1/0"))
    probes.send(make_view("rol_1/0"))
    found = read_probes(tmp_path)
    assert [(one.assigned, one.outcome) for one in found] == [
        (arm, outcome)
        for arm in ("dep_0", "dep_1")
        for outcome in (Outcome.UPSTREAM_ERROR, Outcome.LOST)
    ]
    assert {one.rollout for one in found} == {"rol_1/0"}
    assert {tuple(one.flags) for one in found} == {(Flag.PROBE, Flag.SHADOW)}
    assert {one.cost_nano for one in found} == {0}
    assert len({one.call_id for one in found}) == 4


def test_a_new_step_is_probed_anew_and_an_arm_without_weight_is_not(
    spool: SpoolWriter, tmp_path: Path, clock: ManualClock
) -> None:
    probes = Probes(spool, clock)
    probes.send(make_view("rol_1/-1", weights=(10_000, 0)))
    probes.send(make_view("rol_1/0", "rol_2/0"))
    probes.send(make_view("rol_1/1", "rol_2/0"))
    steps = [one.rollout for one in read_probes(tmp_path)]
    assert steps == ["rol_1/-1"] * 2 + ["rol_1/0"] * 4 + ["rol_2/0"] * 4 + ["rol_1/1"] * 4


def test_a_full_spool_is_probed_with_the_next_snapshot(
    spool: SpoolWriter, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = Probes(spool, clock)
    with monkeypatch.context() as full:
        full.setattr(SpoolWriter, "append", refuse)
        probes.send(make_view("rol_1/0"))
    assert read_probes(tmp_path) == []
    probes.send(make_view("rol_1/0"))
    assert len(read_probes(tmp_path)) == 4


def refuse(_: SpoolWriter, __: bytes) -> int:
    raise PilotageError("spool_full")
