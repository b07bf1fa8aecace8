"""What the control plane gives to gateways that run apart, and what it takes from them."""

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from control_api import Api, open_api
from made_frames import COST_NANO, make_call_frames
from pilotage.core.snapshot import SNAPSHOT_VERSION, SignedManifest, decode_manifest
from pilotage.identity.types import GATEWAY_PREFIX
from pilotage.kit.clock import ManualClock
from pilotage.kit.crypto import is_signed, make_secret
from pilotage.kit.spool_copy import SpoolCopies, pack_records
from pilotage.kit.spool_reader import list_spools
from pilotage.publisher.remotes import ALIVE_S, RemoteGateways, SlotReport
from raw_spool import read_raw
from system import poll

EPOCH = "a" * 32
ACK = "/gateway/acks/gateway-0"
SPOOL = f"/gateway/spools/gateway-0/{EPOCH}"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "data") as opened:
        yield opened


async def make_gateway(api: Api, name: str = "paris") -> dict[str, str]:
    """Create a gateway and return the header that it sends."""
    made = await api.make("/gateways", {"name": name})
    assert made["secret"].startswith(GATEWAY_PREFIX)
    return {"authorization": f"Bearer {made['secret']}"}


async def make_frames(api: Api) -> list[bytes]:
    """Return the frames of five calls of the default tenant."""
    tenant = await api.show("/tenants/default")
    return make_call_frames(10, tenant["project_id"], tenant["id"])


async def post(api: Api, who: dict[str, str], first: int, last: int, **more: Any) -> httpx.Response:  # noqa: ANN401
    frames = await make_frames(api)
    records = [(seq, frames[seq - 1]) for seq in range(first, last + 1)]
    query = {"from_seq": str(first), **more.pop("params", {})}
    body = zlib.compress(pack_records(records))
    return await api.http.post(more.get("path", SPOOL), content=body, params=query, headers=who)


def code_of(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


async def test_a_gateway_may_do_what_gateways_do_and_nothing_else(api: Api) -> None:
    who = await make_gateway(api)
    for route in api.routes:
        path = route.path.replace(":path", "").replace("{", "").replace("}", "")
        reply = await api.http.request(route.method, path, headers={**who, "if-match": "*"})
        assert code_of(reply) == (403, "permission_denied"), f"{route.method} {path}"
    assert (await api.http.get("/gateway/snapshot", headers=who)).status_code == 200


async def test_nobody_else_may_do_what_gateways_do(api: Api) -> None:
    viewer = {"authorization": f"Bearer {await api.make_viewer()}"}
    stranger = {"authorization": f"Bearer {make_secret(GATEWAY_PREFIX)}"}
    for route in api.installation.raw_routes:
        if not route.path.startswith("/gateway"):
            continue
        path = route.path.format(digest="0" * 64, slot="gateway-0", epoch=EPOCH)
        nobody = await api.http.request(route.method, path, headers=stranger)
        assert code_of(nobody) == (401, "invalid_credential"), path
        if not route.permission.endswith(".read"):
            reply = await api.http.request(route.method, path, headers=viewer)
            assert code_of(reply) == (403, "permission_denied"), path
    for method, path in (("GET", SPOOL), ("POST", f"{SPOOL}?from_seq=1"), ("PUT", ACK)):
        reply = await api.http.request(method, path)  # an administrator is no gateway
        assert code_of(reply) == (403, "permission_denied"), path


async def test_a_snapshot_and_its_sections_are_what_is_published(api: Api) -> None:
    made = await api.make("/gateways", {"name": "paris"})
    who = {"authorization": f"Bearer {made['secret']}"}
    reply = await api.http.get("/gateway/snapshot", headers=who)
    signed = msgspec.json.decode(reply.content, type=SignedManifest)
    public, signature = bytes.fromhex(made["public_key"]), bytes.fromhex(signed.signature)
    assert is_signed(public, signed.manifest.encode(), signature)
    for section in decode_manifest(signed.manifest).sections.values():
        content = await api.http.get(f"/gateway/sections/{section.sha256}", headers=who)
        assert hashlib.sha256(content.content).hexdigest() == section.sha256
        assert len(content.content) == section.size
    for wrong in ("0" * 64, "..%2Fcurrent", "x"):
        reply = await api.http.get(f"/gateway/sections/{wrong}", headers=who)
        assert reply.status_code == 404, wrong


async def test_a_long_poll_answers_when_something_changes_and_not_before(api: Api) -> None:
    who = await make_gateway(api)
    n = (await api.show("/snapshot"))["n"]
    nothing = await api.http.get("/gateway/snapshot", params={"after": n}, headers=who)
    assert nothing.status_code == 204
    waiting = asyncio.ensure_future(
        api.http.get("/gateway/snapshot", params={"after": n, "wait_s": 20}, headers=who)
    )
    await api.make("/keys", {"name": "another"})
    reply = await waiting
    assert reply.status_code == 200
    signed = msgspec.json.decode(reply.content, type=SignedManifest)
    assert decode_manifest(signed.manifest).n == n + 1
    for query in ({"after": "-1"}, {"after": "x"}, {"wait_s": "61"}, {"after": "9" * 30}):
        refused = await api.http.get("/gateway/snapshot", params=query, headers=who)
        assert code_of(refused) == (400, "invalid_request")


async def test_a_revoked_gateway_gets_nothing_even_where_it_waits(api: Api) -> None:
    who = await make_gateway(api)
    n = (await api.show("/snapshot"))["n"]
    waiting = asyncio.ensure_future(
        api.http.get("/gateway/snapshot", params={"after": n, "wait_s": 20}, headers=who)
    )
    await api.make("/gateways/paris:revoke")
    assert code_of(await waiting) == (403, "permission_denied")
    assert code_of(await api.http.get("/gateway/snapshot", headers=who)) == (
        401,
        "invalid_credential",
    )
    assert (await api.show("/gateways/paris"))["state"] == "revoked"
    again = await api.http.post("/gateways", json={"name": "paris"})
    assert code_of(again) == (409, "already_exists")


async def test_records_are_kept_once_and_charged_once(api: Api) -> None:
    who = await make_gateway(api)
    assert (await post(api, who, 1, 4)).json() == {"seq": 4}
    assert (await post(api, who, 3, 10)).json() == {"seq": 10}
    assert (await post(api, who, 1, 10)).json() == {"seq": 10}
    assert (await api.http.get(SPOOL, headers=who)).json() == {"seq": 10}
    (folder,) = list_spools(api.folder.spool)
    assert folder.name == f"remote-paris-gateway-0.{EPOCH[:12]}"
    frames = await make_frames(api)
    assert read_raw(folder) == (list(enumerate(frames, 1)), {})
    rows = await poll(
        lambda: api.show("/usage", by="tenant"),
        lambda shown: sum(row["calls"] for row in shown["items"]) == 5,
    )
    assert sum(row["cost_nano"] for row in rows["items"]) == 5 * COST_NANO


async def test_what_cannot_be_kept_is_refused(api: Api) -> None:
    who = await make_gateway(api)
    await post(api, who, 1, 2)
    gap = await post(api, who, 5, 6)
    assert code_of(gap) == (409, "conflict")
    assert "Record 3 comes next" in gap.json()["detail"]
    assert (await post(api, who, 5, 6, params={"lost_before": "1"})).json() == {"seq": 6}
    raw = pack_records([(7, b"frame")])
    for body, status, code in (
        (raw, 400, "invalid_request"),
        (zlib.compress(raw)[:-3], 400, "invalid_request"),
        (zlib.compress(raw[:-1] + b"?"), 400, "invalid_request"),
        (zlib.compress(b"\0" * (17 << 20)), 413, "request_too_large"),
    ):
        reply = await api.http.post(SPOOL, content=body, params={"from_seq": "7"}, headers=who)
        assert code_of(reply) == (status, code)
    for path in (f"/gateway/spools/x/{EPOCH}", "/gateway/spools/gateway-0/abc"):
        assert code_of(await post(api, who, 1, 2, path=path)) == (400, "invalid_request")
    assert (await api.http.get(SPOOL, headers=who)).json() == {"seq": 6}


async def test_a_gateway_writes_its_own_spools_only(api: Api) -> None:
    paris, rome = await make_gateway(api), await make_gateway(api, "rome")
    assert (await post(api, paris, 1, 6)).json() == {"seq": 6}
    assert (await post(api, rome, 1, 2)).json() == {"seq": 2}
    assert (await api.http.get(SPOOL, headers=paris)).json() == {"seq": 6}
    assert [folder.name for folder in list_spools(api.folder.spool)] == [
        f"remote-{name}-gateway-0.{EPOCH[:12]}" for name in ("paris", "rome")
    ]


async def test_a_change_waits_for_remote_slots_that_are_alive(api: Api) -> None:
    who = await make_gateway(api)
    n = (await api.show("/snapshot"))["n"]

    async def report(served: int) -> None:
        said = {"n": served, "shipped": 4, "lag_us": 250_000, "reads": SNAPSHOT_VERSION}
        content = msgspec.json.encode(said)
        reply = await api.http.put(ACK, content=content, headers=who)
        assert reply.status_code == 204, reply.text

    await report(n)
    (slot,) = (await api.show("/gateways/paris"))["slots"]
    assert slot.pop("seen_at")
    assert slot == {
        "slot": "gateway-0",
        "is_alive": True,
        "snapshot_n": n,
        "shipped": 4,
        "lag_s": 0.25,
        "is_outdated": False,
    }
    waiting = asyncio.ensure_future(api.http.post("/keys", json={"name": "one"}))
    await poll(lambda: api.show("/snapshot"), lambda shown: shown["n"] == n + 1)
    assert not waiting.done()
    await report(n + 1)
    assert (await waiting).status_code == 201

    late = await api.http.post("/keys", json={"name": "two"})
    assert late.status_code == 202
    assert late.headers["pilotage-behind"] == "remote-paris-gateway-0"


async def test_a_slot_that_is_alive_and_says_no_version_cannot_read_rollouts(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    remotes = RemoteGateways(tmp_path, SpoolCopies(tmp_path / "spool", 1 << 20), clock)
    await remotes.note("rome", "gateway-0", SlotReport(n=1, reads=SNAPSHOT_VERSION))
    old = msgspec.json.decode(b'{"n":1,"shipped":4,"lag_us":0}', type=SlotReport)
    await remotes.note("paris", "gateway-0", old)
    assert remotes.list_outdated() == ["remote-paris-gateway-0"]
    clock.advance(ALIVE_S)
    assert remotes.list_outdated() == []
    remotes.close()


async def test_a_slot_not_heard_of_is_not_waited_for_after_a_restart_either(
    tmp_path: Path,
) -> None:
    async with open_api(tmp_path / "data") as api:
        who = await make_gateway(api)
        reply = await api.http.put(ACK, content=b'{"n":1}', headers=who)
        assert reply.status_code == 204
    file = tmp_path / "data" / "run" / "remote-paris-gateway-0.json"
    state = msgspec.json.decode(file.read_bytes())
    state["seen_at_us"] -= round(ALIVE_S * 1e6)
    file.write_bytes(msgspec.json.encode(state))
    async with open_api(tmp_path / "data") as api:
        (slot,) = (await api.show("/gateways/paris"))["slots"]
        assert (slot["slot"], slot["is_alive"]) == ("gateway-0", False)
        assert (await api.http.post("/keys", json={"name": "one"})).status_code == 201
