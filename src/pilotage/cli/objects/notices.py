"""What applying channels, routes and inhibitions would change."""

from typing import Any

from pilotage.cli.objects.documents import Document
from pilotage.cli.objects.kinds import ChannelObject, InhibitionObject, NoticeRouteObject
from pilotage.cli.objects.kinds.notices import TIMES
from pilotage.cli.objects.step import CHANGED, CREATED, UNCHANGED, Step, There, compare, post
from pilotage.cli.session import at
from pilotage.core.duration import parse_duration_us


async def plan_channel(there: There, document: Document, channel: ChannelObject) -> Step:
    """Return the step of a channel."""
    return await _plan(there, document, "channels", channel.name, channel.body)


async def plan_notice_route(there: There, document: Document, route: NoticeRouteObject) -> Step:
    """Return the step of a route; raise ``invalid_request`` if it leads nowhere."""
    for name in route.channels:
        is_planned = there.will_make("Channel", document, name)
        if not is_planned and await there.find(document, at("channels", name)) is None:
            raise document.refuse(
                f"channels: there is no channel {name!r}", "Add a document of kind Channel."
            )
    return await _plan(there, document, "notice-routes", route.name, route.body)


async def plan_inhibition(there: There, document: Document, inhibition: InhibitionObject) -> Step:
    """Return the step of an inhibition."""
    return await _plan(there, document, "inhibitions", inhibition.name, inhibition.body)


async def _plan(
    there: There, document: Document, kind: str, name: str, body: dict[str, Any]
) -> Step:
    """Plan to make an object, or to replace what is said of it."""
    path = at(kind, name)
    found = await there.find(document, path)
    if found is None:
        made = post(there, document, f"/{kind}", {"name": name} | body)
        return Step(document=document, result=CREATED, act=made)
    differences = compare(_plain(found), _plain(body))
    if not differences:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        now = await there.control.get(path, project=document.project)
        await there.control.put(path, body, rev=now["rev"], project=document.project)

    return Step(document=document, result=CHANGED, differences=differences, act=act)


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """Return an object with its times as numbers: 60s and 1m are the same time."""
    return {
        name: parse_duration_us(value) if name in TIMES and value is not None else value
        for name, value in item.items()
    }
