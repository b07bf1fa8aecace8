"""A step of applying documents, and what documents are compared with."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pilotage.cli.objects.documents import Document
from pilotage.cli.session import collect
from pilotage.sdk.control import ControlClient

CREATED = "created"
CHANGED = "changed"
UNCHANGED = "unchanged"


class Difference(NamedTuple):
    """A field that is something else than a document says; None stands for what is not there."""

    field: str
    now: object
    wanted: object


def compare(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return where what is there departs from what is wanted, field by field."""
    return tuple(
        Difference(name, now.get(name), value)
        for name, value in wanted.items()
        if now.get(name) != value
    )


async def _nothing() -> None:
    """Do nothing."""


@dataclass(slots=True, kw_only=True)
class Step:
    """What becomes of one document: ``prepare`` brings its file in, ``act`` does the rest.

    ``differences`` are those of an object that is there.
    """

    document: Document
    result: str
    differences: tuple[Difference, ...] = ()
    prepare: Callable[[], Awaitable[None]] = _nothing
    act: Callable[[], Awaitable[None]] = _nothing
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class There:
    """What documents are compared with: the API, and what other documents will make."""

    control: ControlClient
    projects: set[str]
    packages: dict[str, str]
    planned: set[tuple[str, str, str]]

    async def find(self, document: Document, path: str) -> dict[str, Any] | None:
        """Read an object in a document's project; None if it is not there."""
        if document.project not in self.projects:
            return None
        return await self.control.find(path, project=document.project)

    async def list(self, document: Document, path: str, **query: object) -> list[dict[str, Any]]:
        """Read a list in a document's project; it is empty in one that is still to be made."""
        if document.project not in self.projects:
            return []
        return await collect(self.control, path, project=document.project, **query)

    def will_make(self, kind: str, document: Document, title: str) -> bool:
        """Say whether another document makes an object in the same project."""
        return (kind, document.project, title) in self.planned


def plan_settings(
    there: There,
    document: Document,
    path: str,
    found: dict[str, Any],
    wanted: dict[str, Any],
    fields: Sequence[str],
) -> Step:
    """Plan to replace the settings of what is there, if any that are wanted differ."""
    differences = compare(found, wanted)
    if not differences:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        now = await there.control.get(path, project=document.project)
        body = {name: now[name] for name in fields} | wanted
        await there.control.put(path, body, rev=now["rev"], project=document.project)

    return Step(document=document, result=CHANGED, differences=differences, act=act)


def plan_change(
    there: There,
    document: Document,
    path: str,
    now: Mapping[str, Any],
    wanted: dict[str, Any],
    rev: int,
) -> Step:
    """Plan to put ``wanted`` in place of what there is at a revision, if it differs."""
    differences = compare(now, wanted)
    if not differences:
        return Step(document=document, result=UNCHANGED)

    async def act() -> None:
        await there.control.put(path, wanted, rev=rev, project=document.project)

    return Step(document=document, result=CHANGED, differences=differences, act=act)


def post(
    there: There, document: Document, path: str, body: dict[str, Any]
) -> Callable[[], Awaitable[None]]:
    """Return what makes an object in a document's project."""

    async def act() -> None:
        await there.control.post(path, body, project=document.project)

    return act
