"""Refused strangers are counted, said once a minute, and never fill the memory."""

import pytest

from pilotage.gateway.strangers import Strangers
from pilotage.gateway.telemetry.rarely import MAX_KINDS, WINDOW_S
from pilotage.kit.clock import ManualClock


def test_each_source_is_said_once_a_window(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    strangers = Strangers(clock)
    for _ in range(5):
        strangers.accuse("10.0.0.1", "invalid_api_key")
    strangers.accuse("10.0.0.2", "request_too_large")
    assert said(caplog) == [("10.0.0.1", 1), ("10.0.0.2", 1)]
    clock.advance(WINDOW_S)
    strangers.accuse("10.0.0.1", "invalid_api_key")
    assert said(caplog)[2:] == [("10.0.0.1", 5)]  # four unsaid and this one
    assert strangers.by_code == {"invalid_api_key": 6, "request_too_large": 1}


def test_what_says_nothing_of_its_sender_is_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    strangers = Strangers(ManualClock())
    strangers.count("unknown_url")
    assert strangers.by_code == {"unknown_url": 1}
    assert said(caplog) == []


def test_many_sources_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    strangers = Strangers(ManualClock())
    for n in range(3 * MAX_KINDS):
        strangers.accuse(f"source-{n}", "invalid_api_key")
    assert len(strangers._sources) == MAX_KINDS
    assert strangers.by_code == {"invalid_api_key": 3 * MAX_KINDS}
    strangers.accuse(f"source-{3 * MAX_KINDS - 1}", "invalid_api_key")  # one still known
    assert len(said(caplog)) == 3 * MAX_KINDS


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    return [(record.__dict__["source"], record.__dict__["count"]) for record in caplog.records]
