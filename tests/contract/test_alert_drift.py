"""Rules on drift and on opinions, evaluated like all others, on both databases."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from alert_lab import AlertLab, open_lab
from pilotage.core.frames import Feedback
from pilotage.finops.service import FinopsService
from pilotage.kit.clock import ManualClock
from pilotage.kit.db import SYSTEM, Database
from pilotage.kit.root_keys import open_root_keys
from pilotage.kit.secrets import Vault
from pilotage.monitoring.alerts.values import Wanted
from pilotage.monitoring.drift.rules import SPAN_US, floor
from pilotage.monitoring.drift.service import DriftService
from pilotage.monitoring.drift.source import DriftSource
from pilotage.monitoring.drift.types import AnswerKey, Held, Measure, Place
from pilotage.monitoring.drift.worker import ReferenceKeeper
from pilotage.monitoring.quality import store as quality_store
from pilotage.monitoring.quality.rules import make_opinions
from pilotage.monitoring.quality.service import QualityService
from pilotage.monitoring.quality.source import QualitySource
from pilotage.monitoring.quality.types import FeedbackState


class Watched:
    """A lab in which answers are given and judged."""

    def __init__(self, lab: AlertLab, drift: DriftService) -> None:
        self.lab = lab
        self._drift = drift
        self._chance = random.Random(20261121)
        self._said = 0

    async def answer(self, count: int, letters: float, language: str = "en") -> None:
        """Count answers of now, of about so many letters."""
        key = AnswerKey(self.lab.mine.project_id or "", "chat", "", "gpt-5")
        at_us = floor(self.lab.clock.now_us())
        lengths, languages = Held(), Held()
        for _ in range(count):
            lengths.numbers.add(round(self._chance.lognormvariate(letters, 1)))
            languages.add_word(language if self._chance.random() < 0.95 else "und")
        cells = {
            Place(key, Measure.ANSWER_LETTERS, at_us): lengths,
            Place(key, Measure.PROMPT_LANGUAGE, at_us): languages,
        }
        async with self.lab.db.write(SYSTEM) as tx:
            await self._drift.record(tx, cells)

    async def freeze(self) -> None:
        """Let half an hour pass, and freeze what was answered before."""
        self.lab.clock.advance(SPAN_US / 1e6)
        await ReferenceKeeper(self.lab.db, self._drift).step()
        async with self.lab.db.read(SYSTEM) as tx:
            [frozen] = await self._drift.list_references(tx)
        assert len(frozen.measures) == 2

    async def say(self, score: float, label: str, tenant_id: str = "ten_1") -> None:
        """Judge the answer to a call that is known."""
        self._said += 1
        frame = Feedback(
            call_id=f"call_{self._said}",
            at_us=self.lab.clock.now_us(),
            feedback_id=f"fbk_{self._said}",
            project_id=self.lab.mine.project_id or "",
            tenant_id=tenant_id,
            key_id="key",
            score=round(score * 1e6),
            label=label,
        )
        known = [
            replace(one, state=FeedbackState.MATCHED, alias="chat", version_id="ver_gone")
            for one in make_opinions([frame])
        ]
        async with self.lab.db.write(SYSTEM) as tx:
            await quality_store.put_opinions(tx, known)

    async def read(self, name: str, *by: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Return what a metric is a minute later."""
        self.lab.clock.advance(61)
        wanted = Wanted(name, 3_600_000_000, by)
        async with self.lab.db.read(self.lab.mine) as tx:
            picture = await self.lab.values.read(tx, [wanted], self.lab.clock.now_us())
        assert not picture.unread
        return picture.found[wanted].get(self.lab.mine.project_id or "", {})


@pytest.fixture
async def watched(database: Database, clock: ManualClock, tmp_path: Path) -> Watched:
    lab = await open_lab(database, clock)
    clock.advance((SPAN_US - clock.now_us() % SPAN_US) / 1e6 + 60)
    drift = DriftService(clock)
    vault = Vault(open_root_keys(tmp_path / "root.key"))
    quality = QualityService(clock, finops=FinopsService(clock), drift=drift, vault=vault)
    lab.add_sources(DriftSource(drift, lab.names), QualitySource(quality, lab.names))
    return Watched(lab, drift)


async def test_a_rule_fires_when_answers_have_moved_and_not_before(watched: Watched) -> None:
    await watched.lab.set_rule("drifted", "prediction_distribution_shift > 0.1", team="ml")
    await watched.answer(1500, 5.0)
    await watched.freeze()
    assert await watched.lab.look(61) == []
    await watched.answer(199, 9.0)
    assert await watched.lab.look(61) == []  # too few to tell
    await watched.answer(400, 9.0)
    assert await watched.lab.look(61) == [("drifted", "firing")]
    watched.lab.clock.advance(25 * 3_600)
    await watched.answer(500, 5.0)
    assert ("drifted", "resolved") in await watched.lab.look(61)


async def test_the_same_answers_are_no_shift_at_any_number(watched: Watched) -> None:
    await watched.answer(1500, 5.0)
    await watched.freeze()
    for count in (200, 100, 200, 500):
        await watched.answer(count, 5.0)
        [shift] = (await watched.read("prediction_distribution_shift", "alias")).values()
        assert 0 < shift < 0.1


async def test_measures_are_apart_where_they_are_asked_for(watched: Watched) -> None:
    await watched.answer(1500, 5.0)
    await watched.freeze()
    await watched.answer(600, 5.0, language="fr")
    by = ("alias", "measure")
    shifts = await watched.read("prediction_distribution_shift", *by)
    language = (("alias", "chat"), ("measure", "prompt_language"))
    length = (("alias", "chat"), ("measure", "answer_letters"))
    assert (shifts[language] > 0.1, shifts[length] > 0.1) == (True, False)
    alone = await watched.read("prediction_distribution_shift", "version")
    assert alone == {(("version", "gpt-5"),): shifts[length]}  # prompts are no predictions
    [score] = (await watched.read("drift_score")).values()
    assert 0.5 < score <= 1


async def test_opinions_are_numbers_only_where_there_are_any(watched: Watched) -> None:
    assert await watched.read("accuracy", "alias") == {}
    for score, label in ((1, "correct"), (0.5, "correct"), (0, "wrong"), (0.5, "correct")):
        await watched.say(score, label)
    await watched.say(0.0, "wrong", tenant_id="ten_2")
    assert await watched.read("accuracy", "alias") == {(("alias", "chat"),): 0.6}
    assert await watched.read("feedback_score", "tenant") == {
        (("tenant", "ten_1"),): 0.5,
        (("tenant", "ten_2"),): 0.0,
    }
    assert await watched.read("accuracy", "alias", "version") == {
        (("alias", "chat"), ("version", "ver_gone")): 0.6
    }
    assert await watched.read("toxicity_score", "alias") == {}
    watched.lab.clock.advance(3_600)
    assert await watched.read("accuracy", "alias") == {}


async def test_a_rule_fires_when_people_are_unhappy(watched: Watched) -> None:
    await watched.lab.set_rule("disliked", "feedback_score[1d] < 60%")
    assert await watched.lab.look(3) == []
    await watched.say(0.2, "wrong")
    assert await watched.lab.look(11) == [("disliked", "firing")]
