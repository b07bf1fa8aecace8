"""``GET /v1/usage``: callers see their own limits, and nobody else's."""

from pathlib import Path
from typing import Any

import httpx

from faulty_upstream import FaultyUpstream
from gateway_harness import GatewayProcess, World, chat_body, make_http
from pilotage.core.frames import Ended
from pilotage.core.snapshot import MAY_NAME_USERS, LimitEntry

USD = 10**9


def make_limits(world: World) -> list[LimitEntry]:
    common = {"project_id": world.tenant.project_id, "tenant_id": world.tenant.id}
    return [
        LimitEntry(id="lim_month", measure="cost", per="month", amount=2 * USD, **common),
        LimitEntry(id="lim_user", measure="tokens", per="day", amount=1000, user="*", **common),
        LimitEntry(id="lim_rate", measure="requests", per="minute", amount=60, **common),
        LimitEntry(id="lim_busy", measure="concurrency", amount=5, **common),
        LimitEntry(
            id="lim_others",
            project_id=world.tenant.project_id,
            tenant_id="ten_other",
            measure="cost",
            per="total",
            amount=USD,
        ),
    ]


async def read(http: httpx.AsyncClient, user: str) -> dict[str, dict[str, Any]]:
    reply = await http.get("/v1/usage", headers={"x-pilotage-user": user})
    assert reply.status_code == 200, reply.text
    assert reply.json()["object"] == "list"
    return {item["id"]: item for item in reply.json()["data"]}


async def test_callers_see_what_is_left_of_their_limits(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    world.keys[0] = world.keys[0]._replace(flags=MAY_NAME_USERS)
    world.publish(limits=make_limits(world))
    async with FaultyUpstream() as upstream:
        world.point({"dep_a": upstream.port})
        async with GatewayProcess(world) as gateway, make_http(gateway) as http:
            before = await read(http, "alice")
            assert set(before) == {"lim_month", "lim_user", "lim_rate", "lim_busy"}
            assert before["lim_month"]["amount"] == "2.00"
            assert before["lim_month"]["remaining"] == "2.00"
            assert before["lim_user"]["remaining"] == 1000
            reply = await http.post(
                "/v1/chat/completions",
                json=chat_body({"prompt_tokens": 30, "chunks": 12}, max_tokens=50),
                headers={"x-pilotage-user": "alice"},
            )
            assert reply.status_code == 200, reply.text
            alice, bob = await read(http, "alice"), await read(http, "bob")
            nobody = await http.get("/v1/usage", headers={"authorization": "Bearer plt_live_x"})
    [ended] = [frame for frame in world.frames() if isinstance(frame, Ended)]
    assert ended.user == "alice"
    assert (alice["lim_user"]["used"], alice["lim_user"]["remaining"]) == (42, 958)
    assert (bob["lim_user"]["used"], bob["lim_user"]["remaining"]) == (0, 1000)
    assert round(float(alice["lim_month"]["used"]) * USD) == ended.cost_nano > 0
    assert bob["lim_month"]["used"] == alice["lim_month"]["used"]
    assert (alice["lim_rate"]["measure"], alice["lim_rate"]["per"]) == ("requests", "minute")
    assert alice["lim_rate"]["remaining"] in {58, 59, 60}
    assert alice["lim_busy"]["used"] == 0
    assert alice["lim_busy"]["per"] is None
    assert alice["lim_user"]["resets_at"] is not None
    assert all(item["is_current"] for item in alice.values())
    assert nobody.status_code == 401
