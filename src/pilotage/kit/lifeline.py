"""What a child process does for its parent: it dies with it, and shows nobody its memory.

Engines import this before they load their model, so it imports little.
"""

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent(parent_pid: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel kill this process when its parent ends; exit at once if it already has.

    ``by`` is the signal that it gets: one that it handles leaves it time for children of its own.
    "Parent" is the thread that spawned this process, so spawn from one that lives as long as the
    program does (an event loop's), never from a worker thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent_pid:  # it ended between the fork and the prctl
        raise SystemExit("the parent process is gone")


def leave_no_core_file() -> None:
    """Switch core dumps off: the memory of a crashed process may hold prompts and keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
