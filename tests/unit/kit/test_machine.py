"""What the kernel and the GPUs' driver say of this machine."""

import os
import sys
from pathlib import Path

import pytest

from pilotage.kit.machine import (
    Gpus,
    read_cpu_s,
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
