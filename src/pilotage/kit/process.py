"""Parents and children: a child never outlives or exposes its parent, which leaves none behind."""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
from asyncio.subprocess import Process

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; exit at once if it already has.

    "Parent" is the thread that spawned this process, so spawn from one that lives as long as the
    program does (an event loop's), never from a worker thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent_pid:  # it ended between the fork and the prctl
        raise SystemExit("the parent process is gone")


def leave_no_core_file() -> None:
    """Switch core dumps off: the memory of a crashed process may hold prompts and keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


async def end(child: Process, *, group: bool = False) -> None:
    """Kill a child that still runs (with its process group, if told) and wait until it is gone.

    Returns, or is cancelled, only after the child was waited for: one that is forgotten by a
    cancelled caller would stay a zombie that nobody owns.
    """
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
    cancelled: asyncio.CancelledError | None = None
    while child.returncode is None:
        try:
            await child.wait()
        except asyncio.CancelledError as told:
            cancelled = told
    if cancelled is not None:
        raise cancelled
