"""Lifetimes: background tasks that have an owner and end when it closes."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Opened = TypeVar("Opened")


class Background:
    """Owns tasks: started inside ``async with``, cancelled and awaited at its end.

    A task that fails takes the owner's block down with it, like any TaskGroup: work that must
    survive its failures catches them itself (see :mod:`pilotage.kit.worker`).
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        if isinstance(value, Exception):  # the block's own error goes out as it is, not in a group
            await self._group.__aexit__(None, None, None)
        else:
            await self._group.__aexit__(kind, value, trace)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a coroutine until it ends or the owner closes."""
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Held(Generic[Opened]):
    """A context that a task of its own holds open, so that one task may open it and another close.

    ``open`` may be called by many at once; it opens once, and again after a failure or ``close``.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Opened]]) -> None:
        self._make = make
        self._task: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[Opened] | None = None
        self._closing = asyncio.Event()

    async def open(self) -> Opened:
        """Return what the context gives, opened now if it is not open."""
        if self._task is None or self._opened is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._opened, self._closing = loop.create_future(), asyncio.Event()
            self._task = loop.create_task(self._hold(self._opened, self._closing))
            self._task.add_done_callback(partial(_tell, self._opened))
        return await asyncio.shield(self._opened)

    async def close(self) -> None:
        """Close the context, if it is open, and wait until it is closed; raise what that raises."""
        if self._task is not None and not self._task.done():
            self._closing.set()
            await self._task

    async def _hold(self, opened: asyncio.Future[Opened], closing: asyncio.Event) -> None:
        async with self._make() as value:
            opened.set_result(value)
            await closing.wait()


def _tell(opened: asyncio.Future[Opened], task: asyncio.Task[None]) -> None:
    """Hand the failure of opening on to all who wait for it."""
    if opened.done():
        return
    failed = None if task.cancelled() else task.exception()
    if failed is None:
        opened.cancel()
    else:
        opened.set_exception(failed)
