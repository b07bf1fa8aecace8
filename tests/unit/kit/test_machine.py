"""What the kernel and the GPUs' driver say of this machine."""

import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from pilotage.kit.machine import (
    Gpus,
    read_cpu_s,
    read_held_memory,
    read_memory,
    read_process_cpu_s,
    read_process_memory,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


def test_a_process_uses_what_it_says_itself() -> None:
    before = read_process_cpu_s(os.getpid())
    own = os.times()
    assert before is not None
    assert before == pytest.approx(own.user + own.system, abs=0.1)
    memory = read_process_memory(os.getpid())
    assert memory is not None
    assert 10 << 20 < memory < 10 << 30


def test_a_process_that_is_gone_uses_nothing_that_is_known() -> None:
    assert read_process_cpu_s(2**22 + 1) is None
    assert read_process_memory(2**22 + 1) is None


SHARING = """
import mmap, os, sys
weights = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, mmap.MAP_SHARED, mmap.PROT_READ)
common = mmap.mmap(-1, 32 << 20)
own = bytearray(16 << 20)
def touch(pages):
    for start in range(0, len(pages), 4096):
        pages[start]
for start in range(0, len(common), 4096):
    common[start] = 1
touch(weights)
pid = os.fork()
if not pid:
    touch(common), touch(weights)
    more = bytearray(os.urandom(8 << 20))
    print(os.getpid(), flush=True)
sys.stdin.read()
"""


def test_what_processes_share_counts_once_and_files_that_they_map_do_not(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(64 << 20))
    command = [sys.executable, "-I", "-S", "-c", SHARING, str(weights)]
    with Popen(command, stdin=PIPE, stdout=PIPE) as parent:
        assert parent.stdout is not None
        pids = [parent.pid, int(parent.stdout.readline())]
        resident = [read_process_memory(pid) or 0 for pid in pids]
        held = read_held_memory(pids)
        parent.communicate()
    assert min(resident) > 96 << 20
    assert 32 + 8 << 20 < held < 2 * 16 + 32 + 8 + 48 << 20
    assert read_held_memory([2**22 + 1]) == 0


def test_the_machine_works_and_has_memory() -> None:
    cpu_s, memory = read_cpu_s(), read_memory()
    assert cpu_s is not None
    assert cpu_s > 0
    assert memory is not None
    assert 0 < memory.used < memory.total


def test_gpus_are_read_where_there_are_any() -> None:
    gpus = Gpus()
    try:
        found = gpus.read()
    finally:
        gpus.close()
    if not Path("/dev/nvidiactl").exists():
        assert found == ()
        return
    for gpu in found:
        assert 0 <= gpu.busy <= 1
        assert 0 <= gpu.used_bytes <= gpu.total_bytes
    assert gpus.read() == ()
