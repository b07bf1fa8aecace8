"""How channels, routes, inhibitions, silences and notices are asked of the control API."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pilotage.kit.clock import rfc3339
from pilotage.kit.db import Actor
from pilotage.monitoring.notify.service import NotifyService
from pilotage.monitoring.notify.store import insert_notice
from pilotage.monitoring.notify.types import NoticeState

if TYPE_CHECKING:
    from control_api import Api

Json = dict[str, Any]
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
HOOK = {
    "kind": "webhook",
    "url": "https://hooks.example.org/a",
    "secret": "env:PILOTAGE_NOTICE_HOOK",
}
ROUTE = {"channels": ["on-call"], "match": {"team": "asked"}, "settle": "1m"}
CAUSES = {"source": {"rule": "down"}, "target": {"rule": "slow"}}


async def furnish_notices(api: "Api") -> dict[str, str]:
    """Make a channel, a route to it, an inhibition, a silence, and a notice that was given up."""
    channel = await api.make("/channels", {"name": "on-call", "kind": "log"})
    fitting = {"match": {"team": "nobody"}, "channels": ["on-call"]}
    route = await api.make("/notice-routes", fitting | {"name": "nobody"})
    inhibition = await api.make("/inhibitions", CAUSES | {"name": "down"})
    silenced = {"match": {"rule": "slow"}, "ends_at": _soon(api), "reason": "furnished"}
    return {
        "channel": channel["name"],
        "notice_route": route["name"],
        "inhibition": inhibition["name"],
        "silence": (await api.make("/silences", silenced))["id"],
        "notice": await put_notice(api),
    }


async def put_notice(api: "Api") -> str:
    """Write a notice for the channel ``on-call`` that was given up; return its id."""
    service = NotifyService(api.clock)
    project = await api.show("/projects/default")
    async with api.db.write(Actor(principal_id="system", project_id=project["id"])) as tx:
        notice = service.make_test(tx, await service.channels.get(tx, "on-call"))
        await insert_notice(
            tx, replace(notice, state=NoticeState.FAILED, ended_at_us=tx.now_us, problem="away")
        )
    return notice.id


def list_notice_asks(api: "Api") -> dict[tuple[str, str], tuple[Json | None, Json | None]]:
    """Return a body that works for every route that takes one, and one that asks for else."""
    ends_at = rfc3339(api.clock.now_us() // DAY_US * DAY_US + 2 * DAY_US)
    silence = {"match": {"alias": "chat"}, "ends_at": ends_at, "reason": "asked"}
    log = {"kind": "log"}
    return {
        ("POST", "/channels"): (HOOK | {"name": "asked"}, log | {"name": "asked"}),
        ("PUT", "/channels/{channel}"): (HOOK, log),
        ("POST", "/channels/{channel}:test"): (None, None),
        ("POST", "/notice-routes"): (ROUTE | {"name": "a"}, ROUTE | {"name": "a", "kind": "page"}),
        ("PUT", "/notice-routes/{notice_route}"): (ROUTE, ROUTE | {"group_by": ["*"]}),
        ("POST", "/inhibitions"): (CAUSES | {"name": "asked"}, CAUSES | {"name": "else"}),
        ("PUT", "/inhibitions/{inhibition}"): (
            CAUSES | {"equal": ["tenant"]},
            CAUSES | {"equal": ["alias"]},
        ),
        ("POST", "/silences"): (silence, silence | {"reason": "else"}),
        ("POST", "/silences/{silence}:end"): (None, None),
        ("POST", "/notices/{notice}:send"): (None, None),
    }


async def _make_route(api: "Api", number: int) -> object:
    body = {"name": f"page-{number}", "channels": ["on-call"]}
    return await api.make("/notice-routes", body)


async def _make_inhibition(api: "Api", number: int) -> object:
    return await api.make("/inhibitions", CAUSES | {"name": f"page-{number}"})


async def _make_channel(api: "Api", number: int) -> object:
    return await api.make("/channels", {"name": f"page-{number}", "kind": "log"})


async def _make_silence(api: "Api", number: int) -> object:
    match = {"rule": f"page-{number}"}
    return await api.make("/silences", {"match": match, "ends_at": _soon(api), "reason": "asked"})


async def _make_notice(api: "Api", _: int) -> object:
    return await put_notice(api)


NOTICE_LISTS: dict[str, Callable[["Api", int], Awaitable[object]]] = {  # how one more is made
    "/channels": _make_channel,
    "/notice-routes": _make_route,
    "/inhibitions": _make_inhibition,
    "/silences": _make_silence,
    "/notices": _make_notice,
}


def _soon(api: "Api") -> str:
    return rfc3339(api.clock.now_us() + HOUR_US)
