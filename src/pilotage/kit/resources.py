"""Lifetimes: background tasks that have an owner and end when it closes."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


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
