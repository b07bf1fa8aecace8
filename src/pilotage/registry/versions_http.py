"""Control-plane routes of searching versions, saying anew what they are, and their cards."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from pilotage.kit.api import ApiCall, Body, Page, RevisedView, Route, make_page
from pilotage.registry.cards import CARD_FIELDS
from pilotage.registry.http import VersionView
from pilotage.registry.search import FoundVersion, parse_query
from pilotage.registry.service import RegistryService
from pilotage.registry.types import ModelCard, NamedVersion
from pilotage.registry.upkeep import VersionChange

ONE = "/models/{model}/versions/{version}"


class FoundView(VersionView):
    """A version that was found, and what it was sorted by where that is a metric."""

    sorted_by: float | None


class VersionChangeBody(Body):
    """What a version shall say of itself; what it runs never changes."""

    description: str = ""
    display_name: str = ""
    tags: list[str] = Field(default_factory=list)
    custom_metadata: dict[str, Any] = Field(default_factory=dict)


class DeprecationBody(Body):
    """Why nobody should begin to use a version, and which one to use (``NAME@VERSION``)."""

    reason: str
    replacement: str = ""


class CardBody(Body):
    """A model card, in Markdown."""

    intended_use: str = ""
    limits: str = ""
    training_data: str = ""
    evaluation: str = ""
    ethical_notes: str = ""
    contacts: str = ""


class CardView(RevisedView):
    """A revision of a version's card; ``id`` is the version's, revision 0 is empty."""

    ref: str
    intended_use: str
    limits: str
    training_data: str
    evaluation: str
    ethical_notes: str
    contacts: str
    created_at: datetime
    created_by: str


def version_routes(service: RegistryService) -> list[Route]:
    """List the routes of searching versions, changing and deprecating them, and their cards."""
    return [*_search_routes(service), *_change_routes(service), *_card_routes(service)]


def _search_routes(service: RegistryService) -> list[Route]:
    async def search_versions(  # noqa: PLR0913, PLR0917 - a search has that many parts
        call: ApiCall,
        q: str = "",
        stage: str = "",
        source: str = "",
        tag: str = "",
        metric: str = "",
        sort: str = "newest",
        limit: int = 50,
        after: str = "",
    ) -> Page[FoundView]:
        """Search the versions of all models, newest first.

        ``q`` has beginnings of words of name, tags and description; ``tag`` and ``metric``
        (``accuracy>=0.9``) may be several with commas. ``sort`` is newest, oldest, or a metric:
        NAME for lowest first, -NAME for highest first.
        """
        query = parse_query(
            text=q,
            stage=stage,
            source=source,
            tags=tag,
            metrics=metric,
            sort=sort,
            after=after,
            limit=limit + 1,
        )
        async with call.read() as tx:
            found = await service.search_versions(tx, query)
        return make_page(found, limit, _show_found, "cursor")

    return [
        Route(
            method="GET",
            path="/versions",
            permission="registry.versions.read",
            handler=search_versions,
        )
    ]


def _change_routes(service: RegistryService) -> list[Route]:
    async def change_version(
        call: ApiCall, model: str, version: str, body: VersionChangeBody
    ) -> VersionView:
        """Say anew what a version is: description, display name, tags, metadata."""
        change = VersionChange(
            **{name: getattr(body, name) for name in VersionChange.__dataclass_fields__}
        )
        async with call.write() as tx:
            ref = f"{model}@{version}"
            return _show(await service.change_version(tx, ref, change, call.expected_rev))

    async def deprecate_version(
        call: ApiCall, model: str, version: str, body: DeprecationBody
    ) -> VersionView:
        """Mark a version as one that nobody should begin to use, and say what to use instead."""
        async with call.write() as tx:
            ref = f"{model}@{version}"
            return _show(await service.deprecate_version(tx, ref, body.reason, body.replacement))

    return [
        Route(
            method="PUT", path=ONE, permission="registry.versions.change", handler=change_version
        ),
        Route(
            method="POST",
            path=f"{ONE}:deprecate",
            permission="registry.versions.deprecate",
            handler=deprecate_version,
        ),
    ]


def _card_routes(service: RegistryService) -> list[Route]:
    async def get_card(
        call: ApiCall,
        model: str,
        version: str,
        rev: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None,
    ) -> CardView:
        """Show a version's model card, or an earlier revision of it."""
        async with call.read() as tx:
            found = await service.get_version(tx, f"{model}@{version}")
            return _show_card(found, await service.cards.get_card(tx, found, rev))

    async def write_card(call: ApiCall, model: str, version: str, body: CardBody) -> CardView:
        """Replace a version's model card; how complete it is becomes evidence."""
        async with call.write() as tx:
            found = await service.get_version(tx, f"{model}@{version}")
            card = await service.cards.write_card(tx, found, dict(body), call.expected_rev)
        return _show_card(found, card)

    path = f"{ONE}/card"
    return [
        Route(method="GET", path=path, permission="registry.cards.read", handler=get_card),
        Route(method="PUT", path=path, permission="registry.cards.write", handler=write_card),
    ]


def _show(version: NamedVersion) -> VersionView:
    return VersionView.of(version, model=version.model_name)


def _show_found(found: FoundVersion) -> FoundView:
    return FoundView.of(found.version, model=found.version.model_name, sorted_by=found.value)


def _show_card(version: NamedVersion, card: ModelCard) -> CardView:
    texts = {name: card.fields.get(name, "") for name in CARD_FIELDS}
    return CardView.of(card, id=version.id, ref=version.ref, **texts)
