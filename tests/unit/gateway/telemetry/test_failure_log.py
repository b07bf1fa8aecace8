"""Failed calls in the log: rarely, by kind, and never what was asked."""

import logging

import pytest

from made_calls import make_alias, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Outcome
from pilotage.core.snapshot import TenantEntry
from pilotage.gateway.call import Call
from pilotage.gateway.telemetry.failure_log import FailureLog
from pilotage.gateway.telemetry.rarely import WINDOW_S
from pilotage.kit.clock import ManualClock

SECRET_NAME = "what-a-client-named-its-model"


def make_failed(
    outcome: Outcome, code: str, tenant: str = "ten_1", *, is_known: bool = True
) -> Call:
    alias = make_alias()
    call = make_call(
        alias if is_known else None,
        view=make_view(alias),
        tenant=TenantEntry(id=tenant, name="acme", project_id="prj_1"),
    )
    call.alias_name = "chat" if is_known else SECRET_NAME
    call.outcome, call.error = outcome, PilotageError(code, f"about {SECRET_NAME}")
    return call


async def test_each_kind_is_said_once_a_window(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    log = FailureLog(clock)
    failed = make_failed(Outcome.UPSTREAM_ERROR, "upstream_error")
    for _ in range(1000):
        log.note(failed)
    log.note(make_failed(Outcome.UPSTREAM_ERROR, "upstream_error", "ten_2"))
    log.note(make_failed(Outcome.REFUSED, "model_not_found", is_known=False))
    assert [(r.levelname, r.getMessage(), r.__dict__["count"]) for r in caplog.records] == [
        ("WARNING", "calls fail: upstream_error", 1),
        ("WARNING", "calls fail: upstream_error", 1),
        ("INFO", "calls fail: model_not_found", 1),
    ]
    assert [r.__dict__["alias"] for r in caplog.records] == ["chat", "chat", "unknown"]
    assert all(SECRET_NAME not in str(record.__dict__) for record in caplog.records)
    clock.advance(WINDOW_S)
    log.note(failed)
    assert caplog.records[-1].__dict__["count"] == 1000


async def test_what_never_stops_is_said_every_window(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    log = FailureLog(clock)
    failed = make_failed(Outcome.UPSTREAM_ERROR, "upstream_error")
    for _ in range(13):
        log.note(failed)
        clock.advance(WINDOW_S / 4)
    assert [record.__dict__["count"] for record in caplog.records] == [1, 4, 4, 4]


async def test_calls_that_succeed_or_are_left_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = FailureLog(ManualClock())
    succeeded = make_failed(Outcome.OK, "deadline")
    succeeded.error = None
    log.note(succeeded)
    log.note(make_failed(Outcome.CLIENT_GONE, "client_gone"))
    assert caplog.records == []
