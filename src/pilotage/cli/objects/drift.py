"""What an installation has that no document describes."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from pilotage.cli.objects.documents import Document
from pilotage.cli.session import collect
from pilotage.sdk.control import ControlClient


class Stray(NamedTuple):
    """An object that is there and in no document."""

    kind: str
    project: str
    title: str


class _Listing(NamedTuple):
    """Where the objects of a kind are listed, and how one is called among them."""

    path: str
    title: Callable[[dict[str, Any]], str] = lambda item: str(item["name"])
    query: Mapping[str, object] = MappingProxyType({})


# Not versions, which pipelines make, and not prices of the past: a price is only ever added.
_LISTINGS: dict[str, _Listing] = {
    "Principal": _Listing("/principals"),
    "Issuer": _Listing("/issuers"),
    "Tenant": _Listing("/tenants"),
    "Model": _Listing("/models"),
    "Upstream": _Listing("/upstreams"),
    "Price": _Listing("/prices", lambda item: str(item["subject"]), {"current": True}),
    "Endpoint": _Listing("/endpoints"),
    "Limit": _Listing("/limits"),
    "Budget": _Listing("/budgets"),
    "ResourcePrice": _Listing(
        "/resource-prices", lambda item: f"{item['kind']} {item['subject']}", {"current": True}
    ),
    "Freeze": _Listing("/calendar/freezes"),
    "Channel": _Listing("/channels"),
    "NoticeRoute": _Listing("/notice-routes"),
    "Inhibition": _Listing("/inhibitions"),
    "AlertRule": _Listing("/alert-rules"),
    "Slo": _Listing("/slos"),
}


async def find_strays(control: ControlClient, documents: Sequence[Document]) -> list[Stray]:
    """Return what is there and in no document, of the kinds that a project has documents of.

    Files that hold nothing but tenants of a project do not speak of its models.
    """
    there = {item["name"] for item in await collect(control, "/projects")}
    spoken_of = dict.fromkeys((item.project, item.kind) for item in documents)
    found: list[Stray] = []
    for project, kind in spoken_of:
        if project in there and kind in _LISTINGS:
            found.extend(await _list_strays(control, kind, project, _LISTINGS[kind]))
    described = {Stray(item.kind, item.project, item.content.title) for item in documents}
    return [item for item in found if item not in described]


async def _list_strays(
    control: ControlClient, kind: str, project: str, listing: _Listing
) -> list[Stray]:
    items = await collect(control, listing.path, project=project, **listing.query)
    return [Stray(kind, project, listing.title(item)) for item in items]
