"""Child processes and how they end."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process


async def end(child: Process, *, group: bool = False) -> None:
    """Kill a child that still runs and wait until it is gone.

    With ``group``, everything in the process group that it leads is killed, also what has outlived
    it. Returns, or is cancelled, only after the child was waited for: one that is forgotten by a
    cancelled caller would stay a zombie that nobody owns.
    """
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(child.pid, signal.SIGKILL)
        elif child.returncode is None:
            child.kill()
    cancelled: asyncio.CancelledError | None = None
    while child.returncode is None:
        try:
            await child.wait()
        except asyncio.CancelledError as told:
            cancelled = told
    if cancelled is not None:
        raise cancelled
