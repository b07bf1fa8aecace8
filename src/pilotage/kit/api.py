"""Control-plane routes as data: a slice lists them, the server gives them the API's conventions.

A handler takes an :class:`ApiCall` first and then its path, query and body parameters by name and
type. It opens the transactions itself, so that no transaction spans a network call.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from pilotage.kit.clock import to_datetime
from pilotage.kit.db import Actor, Tx

Item = TypeVar("Item", bound="View")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
_PERMISSION = re.compile(r"[a-z]+\.[a-z_]+\.[a-z_]+")


class ApiCall(Protocol):
    """One authorised request."""

    @property
    def actor(self) -> Actor:
        """Who asks, within which project and why."""
        ...

    @property
    def expected_rev(self) -> int | None:
        """The revision that ``If-Match`` names; None for ``*``."""
        ...

    def read(self) -> AbstractAsyncContextManager[Tx]:
        """Open a reading transaction in the call's scope."""
        ...

    def write(self) -> AbstractAsyncContextManager[Tx]:
        """Open a writing transaction; the reply waits until its changes are visible to gateways.

        Raises if the caller may not do this any more: a request can be open for long.
        """
        ...

    def body(self) -> AsyncIterator[bytes]:
        """Stream the raw body."""
        ...

    async def wait_gone(self) -> None:
        """Wait until the caller has hung up; only once the body was read."""
        ...

    async def require(self, permission: str, *, is_global: bool = False) -> None:
        """Raise ``permission_denied`` unless the caller also holds this permission.

        For what only some requests of a route ask for; the route's own is checked before.
        ``is_global`` asks for it in the whole installation.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of ``/api/v1``; ``permission`` is the authorisation decision, without default.

    ``is_global`` marks operations on the installation rather than on a project; ``secrets`` names
    the fields of the reply that are shown once and kept nowhere, not even for a repeated request.
    """

    method: Method
    path: str
    permission: str
    handler: Callable[..., Awaitable[Any]]
    status: int = 200
    is_global: bool = False
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _PERMISSION.fullmatch(self.permission):
            raise ValueError(f"{self.method} {self.path} needs a permission: slice.noun.verb")


class RawCall(Protocol):
    """One authorised request of a program, with bytes of its own kind."""

    @property
    def actor(self) -> Actor:
        """Who asks."""
        ...

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters in the path, by name."""
        ...

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters behind the question mark, by name."""
        ...

    def read(self) -> AbstractAsyncContextManager[Tx]:
        """Open a reading transaction."""
        ...

    def body(self) -> AsyncIterator[bytes]:
        """Stream the raw body."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReply:
    """Bytes, or a file that is streamed."""

    body: bytes | Path = b""
    status: int = 200
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRoute:
    """An operation between programs: bytes in and out, none of the conventions for people.

    The authorisation decision is the same: ``permission``, without default, in the project of
    ``?project=`` unless the route ``is_global``.
    """

    method: Method
    path: str
    permission: str
    handler: Callable[[RawCall], Awaitable[RawReply]]
    is_global: bool = False

    def __post_init__(self) -> None:
        if not _PERMISSION.fullmatch(self.permission):
            raise ValueError(f"{self.method} {self.path} needs a permission: slice.noun.verb")


class Body(BaseModel):
    """A request body: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    """What the API shows of an object; ``created_at`` comes from ``created_at_us`` and so on."""

    @classmethod
    def of(cls, item: object, **more: object) -> Self:
        """Make the view of a dataclass; ``more`` adds or replaces fields."""
        values: dict[str, object] = {}
        for name in cls.model_fields:
            if name in more:
                values[name] = more[name]
            elif hasattr(item, name):
                values[name] = getattr(item, name)
            else:
                values[name] = to_datetime(getattr(item, f"{name}_us"))
        return cls.model_validate(values)


class RevisedView(View):
    """An object with revisions; ``rev`` is its ETag."""

    id: str
    rev: int


class Page(View, Generic[Item]):
    """Items in key order and the key to continue after, if there are more."""

    items: list[Item]
    next: str | None = None


def make_page(
    items: Sequence[Any], limit: int, show: Callable[[Any], Item], key: str
) -> Page[Item]:
    """Make a page of at most ``limit`` items from ``limit + 1`` asked for.

    ``key`` names the sorting field.
    """
    more = len(items) > limit
    shown = items[:limit]
    return Page(
        items=[show(item) for item in shown], next=str(getattr(shown[-1], key)) if more else None
    )
