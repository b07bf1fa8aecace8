"""Feedback: what is taken, what is refused and where it says so, how much of it."""

import json
from pathlib import Path

import msgspec
import pytest

from pilotage.core.errors import PilotageError
from pilotage.core.frames import Feedback, decode_frame
from pilotage.core.snapshot import TenantEntry
from pilotage.gateway.feedback import PER_SECOND, FeedbackDesk
from pilotage.kit.clock import ManualClock
from pilotage.kit.sealing import make_key, make_letterbox, open_letter
from pilotage.kit.spool import open_spool
from pilotage.kit.spool_reader import read_records

CLOCK = ManualClock()
CALL = CLOCK.new_id("call")
TENANT = TenantEntry(id="ten_1", name="acme", project_id="prj_1")


async def take(
    folder: Path, said: object, times: int = 1, tenant: TenantEntry = TENANT
) -> dict[str, object]:
    with open_spool(folder, segment_bytes=1 << 20, reserve_bytes=0, sync="none") as spool:
        desk = FeedbackDesk(spool, CLOCK)
        for _ in range(times):
            reply = await desk.take(tenant, "key_1", json.dumps(said).encode())
    decoded: dict[str, object] = msgspec.json.decode(reply)
    return decoded


async def test_score_and_label_become_a_frame_and_the_comment_does_not(tmp_path: Path) -> None:
    said = {"request_id": CALL, "score": 0.75, "label": "correct", "comment": "Mr Smith liked it"}
    reply = await take(tmp_path, said)
    [(_, payload)] = read_records(tmp_path, 0, 10)
    frame = decode_frame(payload)
    assert isinstance(frame, Feedback)
    assert (frame.call_id, frame.tenant_id, frame.project_id) == (CALL, "ten_1", "prj_1")
    assert (frame.score, frame.label, frame.key_id) == (750_000, "correct", "key_1")
    assert (reply["id"], reply["comment"]) == (frame.feedback_id, "dropped")
    assert b"Smith" not in payload


@pytest.mark.parametrize(("letters", "times"), [(80, 100), (1_000, 8), (4_000, 2)])
async def test_long_comments_that_are_kept_are_taken_less_often(
    tmp_path: Path, letters: int, times: int
) -> None:
    said = {"request_id": CALL, "score": 1, "comment": "\N{SNOWMAN}" * letters}
    CLOCK.advance(1)
    await take(tmp_path / "dropped", said, PER_SECOND)
    box = make_letterbox(make_key(), 3, TENANT.id, "feedback comment")
    tenant = msgspec.structs.replace(TENANT, letterbox=box)
    with pytest.raises(PilotageError, match="less often with long comments"):
        await take(tmp_path, said, PER_SECOND + 1, tenant)
    kept = read_records(tmp_path, 0, 1000)
    assert len(kept) == times


async def test_a_comment_that_is_kept_is_sealed_for_whoever_has_the_tenants_key(
    tmp_path: Path,
) -> None:
    key, box = make_key(), "feedback comment"
    tenant = msgspec.structs.replace(TENANT, letterbox=make_letterbox(key, 3, TENANT.id, box))
    said = {"request_id": CALL, "score": 0.75, "comment": "Mr Smith liked it \N{SNOWMAN}"}
    reply = await take(tmp_path, said, tenant=tenant)
    [(_, payload)] = read_records(tmp_path, 0, 10)
    frame = decode_frame(payload)
    assert isinstance(frame, Feedback)
    assert reply["comment"] == "kept"
    assert b"Smith" not in payload
    opened = open_letter(key, TENANT.id, box, frame.feedback_id, frame.comment)
    assert opened.decode() == said["comment"]


@pytest.mark.parametrize("said", [{"score": 0}, {"score": 1}, {"label": "thumbs-up"}])
async def test_a_score_or_a_label_is_enough(tmp_path: Path, said: dict[str, object]) -> None:
    reply = await take(tmp_path, {"request_id": CALL} | said)
    assert {name: reply[name] for name in said} == said
    assert reply["comment"] is None


@pytest.mark.parametrize(
    ("said", "code", "param"),
    [
        ({"score": 1}, "invalid_request", "request_id"),
        ({"request_id": "call_1", "score": 1}, "invalid_request", "request_id"),
        ({"request_id": CLOCK.new_id("key"), "score": 1}, "invalid_request", "request_id"),
        ({"request_id": CALL}, "invalid_request", "score"),
        ({"request_id": CALL, "comment": "nice"}, "invalid_request", "score"),
        ({"request_id": CALL, "score": 1.01}, "invalid_request", "score"),
        ({"request_id": CALL, "score": -0.01}, "invalid_request", "score"),
        ({"request_id": CALL, "score": "5"}, "invalid_request", "score"),
        ({"request_id": CALL, "label": "Very Good"}, "invalid_request", "label"),
        ({"request_id": CALL, "label": "x" * 65}, "invalid_request", "label"),
        ({"request_id": CALL, "score": 1, "stars": 5}, "invalid_request", "stars"),
        ({"request_id": CALL, "score": 1, "comment": "x" * 4_001}, "invalid_request", "comment"),
        ({"request_id": CALL, "score": 1, "comment": 5}, "invalid_request", "comment"),
        ("no object", "invalid_request", None),
    ],
)
async def test_what_says_nothing_is_refused_by_its_field(
    tmp_path: Path, said: object, code: str, param: str | None
) -> None:
    with pytest.raises(PilotageError) as refused:
        await take(tmp_path, said)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert list(read_records(tmp_path, 0, 10)) == []


async def test_a_tenant_gives_so_much_a_second(tmp_path: Path) -> None:
    said = {"request_id": CALL, "score": 1}
    with pytest.raises(PilotageError, match="100 times a second"):
        await take(tmp_path, said, PER_SECOND + 1)
    assert len(list(read_records(tmp_path, 0, 1000))) == PER_SECOND
    CLOCK.advance(1)
    await take(tmp_path, said)
