"""How full a disk is, and what is said and given up when it fills."""

import logging
from pathlib import Path

import pytest

from pilotage.kit.disk import DiskLevel, DiskWatch, assess_disk, read_used_share

FINE, ALARM, SPARE = DiskLevel.FINE, DiskLevel.ALARM, DiskLevel.SPARE


@pytest.mark.parametrize(
    ("used", "before", "level"),
    [
        (0.0, FINE, FINE),
        (0.7999, FINE, FINE),
        (0.80, FINE, ALARM),
        (0.8999, ALARM, ALARM),
        (0.90, ALARM, SPARE),
        (1.0, FINE, SPARE),
        (0.89, SPARE, SPARE),  # no flicker at the border
        (0.87, SPARE, ALARM),
        (0.79, ALARM, ALARM),
        (0.77, ALARM, FINE),
        (0.79, SPARE, ALARM),
        (0.5, SPARE, FINE),
    ],
)
def test_levels_are_left_later_than_they_are_entered(
    used: float, before: DiskLevel, level: DiskLevel
) -> None:
    assert assess_disk(used, before) == level


def test_a_change_is_told_once_to_the_log_and_to_listeners(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shares = iter([0.5, 0.85, 0.86, 0.95, 0.95, 0.4])
    watch = DiskWatch(tmp_path, lambda _: next(shares))
    heard: list[tuple[DiskLevel, float]] = []
    watch.on_change.append(lambda level, share: heard.append((level, share)))
    with caplog.at_level(logging.WARNING):
        has_room = []
        for _ in range(6):
            watch.look()
            has_room.append(watch.has_room)
    assert heard == [(ALARM, 0.85), (SPARE, 0.95), (FINE, 0.4)]
    assert has_room == [True, True, True, False, False, True]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "WARNING"]
    assert "85 % is used" in caplog.records[0].getMessage()
    assert "samples and traces stop" in caplog.records[1].getMessage()


def test_a_disk_that_cannot_be_looked_at_keeps_its_level(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = DiskWatch(tmp_path / "gone")
    assert watch.look() == FINE
    assert "cannot be looked at" in caplog.text


def test_the_share_of_a_real_disk_is_a_share(tmp_path: Path) -> None:
    assert 0 < read_used_share(tmp_path) < 1
