"""Refused strangers are counted, said once a minute, and never fill the memory."""

import pytest

from pilotage.gateway.strangers import MAX_SOURCES, WINDOW_S, Strangers
from pilotage.kit.clock import ManualClock


def test_each_source_is_said_once_a_window(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    strangers = Strangers(clock)
    for _ in range(5):
        strangers.count("10.0.0.1", "invalid_api_key")
    strangers.count("10.0.0.2", "request_too_large")
    assert said(caplog) == [("10.0.0.1", 1), ("10.0.0.2", 1)]
    clock.advance(WINDOW_S)
    strangers.count("10.0.0.1", "invalid_api_key")
    assert said(caplog)[2:] == [("10.0.0.1", 5)]  # four unsaid and this one
    assert strangers.total == 7


def test_many_sources_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    strangers = Strangers(ManualClock())
    for n in range(3 * MAX_SOURCES):
        strangers.count(f"source-{n}", "invalid_api_key")
    assert len(strangers._seen) == MAX_SOURCES
    assert strangers.total == 3 * MAX_SOURCES
    strangers.count(f"source-{3 * MAX_SOURCES - 1}", "invalid_api_key")  # one still known
    assert len(said(caplog)) == 3 * MAX_SOURCES


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int]]:
    return [(record.__dict__["source"], record.__dict__["count"]) for record in caplog.records]
