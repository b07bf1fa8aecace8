"""Samples from real spool folders, on both databases: taken once, opened, forgotten, dropped."""

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from calls import open_writer
from pilotage.audit.holds import HoldService
from pilotage.core.errors import PilotageError
from pilotage.core.samples import SAMPLE, Sampled, Texts, encode_sample, encode_texts
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.sealing import post
from pilotage.kit.secrets import Vault
from pilotage.kit.spool_consumer import SpoolBatch
from pilotage.rollouts.samples.service import SampleService
from pilotage.rollouts.samples.types import Sample
from pilotage.rollouts.samples.worker import DROP_EVERY_S, SampleReader
from stores import Projects, make_projects

KEEP_S = 30 * 86_400
TEXTS = Texts(body={"messages": [{"role": "user", "content": "Zebrafink"}]}, answer="Aye")


@dataclass(slots=True)
class Lab:
    """A spool of samples, what reads it, and the keys."""

    database: Database
    clock: ManualClock
    root: Path
    projects: Projects
    vault: Vault
    service: SampleService
    reader: SampleReader
    boxes: dict[str, str] = field(default_factory=dict)
    made: int = 0

    async def sample(self, tenant: str = "ten_a", **more: str) -> Sampled:
        if tenant not in self.boxes:
            async with self.database.write(SYSTEM) as tx:
                keys = await self.vault.get_keys(tx, tenant)
                self.boxes[tenant] = keys.make_letterbox(SAMPLE)
        self.made += 1
        sample_id = f"smp_{self.made:04d}"
        return Sampled(
            sample_id=sample_id,
            call_id=f"call_{self.made}",
            at_us=self.clock.now_us(),
            project_id=more.get("project_id", self.projects.mine.project_id or ""),
            tenant_id=tenant,
            alias=more.get("alias", "chat"),
            version_id="ver_1",
            model="tiny@1.0.0",
            letter=post(self.boxes[tenant], tenant, sample_id, encode_texts(TEXTS)),
        )

    async def spool(self, *samples: Sampled) -> None:
        with open_writer(self.root) as writer:
            for sample in samples:
                writer.append(encode_sample(sample))
        await self.read()

    async def read(self) -> None:
        while await self.reader.step():
            pass

    async def kept(self, alias: str = "chat", limit: int = 99) -> Sequence[Sample]:
        async with self.database.read(self.projects.mine) as tx:
            return await self.service.list(tx, alias, 0, limit)


@pytest.fixture
async def lab(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Lab]:
    vault = Vault(open_root_keys(tmp_path / "root.key"))
    service = SampleService(clock, vault, KEEP_S * 1_000_000)
    holds = HoldService(clock)
    reader = SampleReader(database, tmp_path / "samples", service, clock, holds.is_held)
    projects = await make_projects(database, clock)
    yield Lab(database, clock, tmp_path / "samples", projects, vault, service, reader)
    await reader.close()


async def test_samples_are_taken_once_and_are_those_of_a_project(lab: Lab) -> None:
    other = lab.projects.other.project_id or ""
    await lab.spool(await lab.sample(), await lab.sample(alias="other"), await lab.sample())
    await lab.spool(await lab.sample(project_id=other))
    await lab.read()
    assert [one.id for one in await lab.kept()] == ["smp_0001", "smp_0003"]
    assert [one.id for one in await lab.kept(limit=1)] == ["smp_0003"]
    async with lab.database.read(lab.projects.mine) as tx:
        counts = await lab.service.count(tx)
        [of_chat] = await lab.service.count(tx, "chat")
    assert [(one.alias, one.samples) for one in counts] == [("chat", 2), ("other", 1)]
    assert of_chat.tenant_id == "ten_a"


async def test_a_batch_that_was_taken_is_not_taken_again(lab: Lab) -> None:
    batch = SpoolBatch(spool="gateway-0", epoch="e", after_seq=0, last_seq=2, records=[])
    async with lab.database.write(SYSTEM) as tx:
        await lab.service.record(tx, batch, [make_broken(lab)])
        assert await lab.service.get_place(tx, "gateway-0", "e") == 2
    with pytest.raises(PilotageError, match="meanwhile"):
        async with lab.database.write(SYSTEM) as tx:
            await lab.service.record(tx, batch, [])


def make_broken(lab: Lab) -> Sampled:
    return Sampled(
        sample_id="smp_x",
        call_id="call",
        at_us=lab.clock.now_us(),
        project_id=lab.projects.mine.project_id or "",
        tenant_id="ten_a",
        alias="chat",
        version_id="",
        model="",
        letter=b"",
    )


async def test_nothing_that_was_taken_stays_in_a_spool(lab: Lab) -> None:
    await lab.spool(await lab.sample())
    written = [path for path in lab.root.rglob("*.seg") if path.stat().st_size]
    assert len(written) == 1
    os.utime(written[0], (0, 0))
    with open_writer(lab.root, "gateway-1") as other:
        other.append(encode_sample(await lab.sample("ten_b")))
        lab.clock.advance(DROP_EVERY_S)
        await lab.read()
        assert [path.parent.name for path in lab.root.rglob("*.seg") if path.stat().st_size] == [
            "gateway-1"
        ]
    await lab.spool(await lab.sample())
    assert [one.id for one in await lab.kept()] == ["smp_0001", "smp_0002", "smp_0003"]


async def test_what_is_no_sample_is_passed_over(lab: Lab) -> None:
    with open_writer(lab.root) as writer:
        writer.append(b"no sample at all")
        writer.append(encode_sample(await lab.sample()))
    await lab.read()
    assert len(await lab.kept()) == 1


async def test_samples_open_for_their_tenant_and_that_is_noted(lab: Lab) -> None:
    await lab.spool(await lab.sample(), await lab.sample("ten_b"), make_broken(lab))
    async with lab.database.write(lab.projects.mine) as tx:
        found = await lab.service.list(tx, "chat", 0, 99)
        assert await lab.service.open(tx, found) == {"smp_0001": TEXTS, "smp_0002": TEXTS}
        assert len(tx.written) == 1
        assert await lab.service.open(tx, found[2:]) == {}
        assert len(tx.written) == 1
    files = [path for path in lab.root.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"Zebrafink" in path.read_bytes()]
    assert not [one for one in await lab.kept() if b"Zebrafink" in one.letter]


async def test_with_its_key_a_tenant_is_forgotten(lab: Lab) -> None:
    await lab.spool(await lab.sample(), await lab.sample("ten_b"))
    found = await lab.kept()
    async with lab.database.write(SYSTEM) as tx:
        await lab.vault.destroy(tx, "ten_a")
        assert await lab.service.open(tx, found) == {"smp_0002": TEXTS}
        assert await lab.service.forget(tx, "ten_a") == 1
    assert [one.tenant_id for one in await lab.kept()] == ["ten_b"]


async def test_samples_are_kept_for_so_long_and_under_a_hold_for_longer(lab: Lab) -> None:
    await lab.spool(await lab.sample())
    holds = HoldService(lab.clock)
    async with lab.database.write(SYSTEM) as tx:
        await holds.create_hold(tx, "case-1", "a letter")
    lab.clock.advance(KEEP_S)
    await lab.read()
    assert len(await lab.kept()) == 1
    async with lab.database.write(SYSTEM) as tx:
        await holds.release_hold(tx, "case-1")
    lab.clock.advance(DROP_EVERY_S)
    await lab.read()
    assert await lab.kept() == []
