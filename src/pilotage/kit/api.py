"""Control-plane routes as data: a slice lists them, the server gives them the API's conventions.

A handler takes an :class:`ApiCall` first and then its path, query and body parameters by name and
type. It opens the transactions itself, so that no transaction spans a network call.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from pilotage.kit.db import Actor, Tx

Item = TypeVar("Item", bound="View")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


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
        """Open a writing transaction; the reply waits until its changes are visible to gateways."""
        ...

    def body(self) -> AsyncIterator[bytes]:
        """Stream the raw body."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of ``/api/v1``; ``permission`` is the authorisation decision and has no default.

    ``is_global`` marks operations on the installation rather than on a project.
    """

    method: Method
    path: str
    permission: str
    handler: Callable[..., Awaitable[Any]]
    status: int = 200
    is_global: bool = False
    takes_stream: bool = False


class Body(BaseModel):
    """A request body: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    """What the API shows of an object."""

    model_config = ConfigDict(from_attributes=True)


class RevisedView(View):
    """An object with revisions; ``rev`` is its ETag."""

    id: str
    rev: int


class Page(View, Generic[Item]):
    """Items in key order and the key to continue after, if there are more."""

    items: list[Item]
    next: str | None = None
