"""Children that are ended, and what they leave behind."""

import asyncio
import sys
from asyncio.subprocess import PIPE

import psutil

from pilotage.kit.process import end

PARENT = """
import subprocess, sys
wait = [sys.executable, "-c", "import signal; signal.pause()"]
child = subprocess.Popen(wait, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.exit(3)
"""


async def test_what_has_outlived_a_child_ends_with_its_group() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=PIPE, start_new_session=True
    )
    assert child.stdout is not None
    left = psutil.Process(int(await child.stdout.readline()))
    assert await child.wait() == 3
    assert left.is_running()

    await end(child, group=True)

    _, alive = psutil.wait_procs([left], timeout=10)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    await end(child, group=True)  # nobody is left
