"""The request log: which calls it keeps, what it says of them, and what it does when it cannot."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from made_calls import make_alias, make_arm, make_call, make_view
from pilotage.core.errors import PilotageError
from pilotage.core.frames import Flag, Outcome
from pilotage.core.snapshot import FULL_WEIGHT, TenantEntry
from pilotage.core.usage import Usage
from pilotage.gateway.call import Call
from pilotage.gateway.telemetry.request_log import FILES, MAX_WAITING, RequestLog
from pilotage.kit.clock import ManualClock

SECRET = b"s" * 32
USER = "jane.doe@bank.test"
TEXT = b"the-marker-in-every-prompt"


def make_ended(call_id: str = "call_1", share: int = FULL_WEIGHT, **more: Any) -> Call:  # noqa: ANN401
    alias = make_alias(make_arm())
    data_class = more.pop("data_class", "internal")
    tenant = TenantEntry(
        id="ten_1", name="acme", project_id="prj_1", log_share=share, data_class=data_class
    )
    body = b'{"model":"chat","messages":[{"role":"user","content":"' + TEXT + b'"}]}'
    call = make_call(
        alias, view=make_view(alias), tenant=tenant, body=body, call_id=call_id, user=USER
    )
    call.arm, call.usage, call.is_sent, call.attempts = make_arm(), Usage(10, 0, 0, 5), True, 1
    call.started_s, call.ended_s, call.waited_s = 1.0, 1.5, 0.4
    for name, value in more.items():
        setattr(call, name, value)
    return call


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "requests-gateway-0.jsonl"


async def test_a_line_says_everything_but_what_was_said(path: Path) -> None:
    log = RequestLog(path, ManualClock(), SECRET)
    call = make_ended(flags={Flag.RETRIED}, trace_id="ab" * 16)
    call.outcome, call.error = Outcome.DEADLINE, PilotageError("deadline", TEXT.decode())
    log.note(call)
    log.close()
    text = path.read_text()
    assert TEXT.decode() not in text
    assert USER not in text
    (line,) = read(path)
    user = line.pop("user")
    assert len(user) == 32
    assert line == {
        "time": "2023-11-14T22:13:20.000000Z",
        "call_id": "call_1",
        "tenant": "ten_1",
        "key": "key_1",
        "data_class": "internal",
        "purpose": "",
        "feature": "",
        "wire": "chat",
        "project": "prj_1",
        "alias": "chat",
        "arm": "dep_a",
        "model": "model-dep_a@1.0.0",
        "version_id": "ver_dep_a",
        "outcome": "deadline",
        "code": "deadline",
        "usage": {"input": 10, "cache_read": 0, "cache_write": 0, "output": 5, "reasoning": 0},
        "cost_nano": 12_500,
        "is_estimated": False,
        "duration_ms": 500.0,
        "waited_ms": 400.0,
        "ttft_ms": None,
        "attempts": 1,
        "flags": ["retried"],
        "trace_id": "ab" * 16,
    }
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_user_is_recognised_under_one_key_only(tmp_path: Path) -> None:
    users = []
    for name, secret in (("a", SECRET), ("b", SECRET), ("c", b"t" * 32)):
        log = RequestLog(tmp_path / name, ManualClock(), secret)
        log.note(make_ended())
        log.close()
        users.append(read(tmp_path / name)[0]["user"])
    assert users[0] == users[1] != users[2]


@pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (1000, 400, 600)])
async def test_a_share_is_chosen_by_the_id_of_a_call(
    tmp_path: Path, share: int, least: int, most: int
) -> None:
    kept = []
    for name in ("first", "second"):
        log = RequestLog(tmp_path / name, ManualClock(), SECRET)
        call = make_ended(share=share)
        for n in range(5000):
            call.id = f"call_{n}"
            log.note(call)
        log.close()
        kept.append([line["call_id"] for line in read(tmp_path / name)])
    assert least <= len(kept[0]) <= most
    assert kept[0] == kept[1]


async def test_nothing_is_kept_of_restricted_data_or_on_a_short_disk(path: Path) -> None:
    has_room = [False]
    log = RequestLog(path, ManualClock(), SECRET, has_room=lambda: has_room[0])
    log.note(make_ended("no_room"))
    has_room[0] = True
    log.note(make_ended("restricted", data_class="restricted"))
    log.note(make_ended("kept"))
    log.close()
    assert [line["call_id"] for line in read(path)] == ["kept"]
    assert log.dropped == 1


async def test_files_are_turned_over_and_the_oldest_go(path: Path) -> None:
    for n in range(12):
        log = RequestLog(path, ManualClock(), SECRET, file_bytes=1)
        log.note(make_ended(f"call_{n}"))
        log.close()
    files = sorted(path.parent.iterdir())
    assert len(files) == FILES
    kept = sorted(line["call_id"] for file in files for line in read(file))
    assert kept == ["call_10", "call_11", "call_8", "call_9"]


async def test_what_a_disk_refuses_is_dropped_and_said_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()  # nothing can be appended to a folder
    log = RequestLog(path, ManualClock(), SECRET)
    call = make_ended()
    for _ in range(MAX_WAITING // 10):
        log.note(call)
    log.close()
    assert log.dropped == MAX_WAITING // 10
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
