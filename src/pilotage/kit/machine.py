"""What this machine and its processes are used to, as the kernel and the GPUs' driver say.

Linux tells of processors and memory below /proc; elsewhere that part is not known. NVIDIA's
management library is asked where it is installed, and nothing is missed where it is not.
"""

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NVML = ("libnvidia-ml.so.1", "libnvidia-ml.so")
_MOST_PROCESSES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes of the machine's memory: all, and what is not available to anybody."""

    total: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU: the share of the last second that it worked, its memory, the processes on it."""

    busy: float
    used_bytes: int
    total_bytes: int
    pids: frozenset[int]


def read_process_cpu_s(pid: int) -> float | None:
    """Return the processor seconds that a process has used; None if that is not known."""
    with suppress(OSError, ValueError, IndexError):
        # the name, in parentheses, may have spaces and parentheses itself
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return None


def read_process_memory(pid: int) -> int | None:
    """Return the bytes of memory that a process holds; None if that is not known."""
    with suppress(OSError, ValueError, IndexError):
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def read_held_memory(pids: Iterable[int]) -> int:
    """Return the bytes of memory that processes which belong together hold, as far as is known.

    Their own pages, and the most that one of them shares with others: whoever works together shares
    the same. Pages of files that they map, such as weights, are no part of it, since the kernel
    takes them back when others need memory.
    """
    own = shared = 0
    for pid in pids:
        with suppress(OSError, ValueError, KeyError):
            lines = (_PROC / str(pid) / "status").read_text().splitlines()
            kib = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
            own += int(kib["RssAnon"][0]) << 10
            shared = max(shared, int(kib["RssShmem"][0]) << 10)
    return own + shared


def list_family(pid: int) -> frozenset[int]:
    """Return a process and its descendants, as far as the kernel tells of them."""
    found, new = {pid}, [pid]
    while new:
        parent = new.pop()
        for path in (_PROC / str(parent) / "task").glob("*/children"):
            with suppress(OSError, ValueError):
                born = {int(word) for word in path.read_text().split()} - found
                found |= born
                new += born
    return frozenset(found)


def read_cpu_s() -> float | None:
    """Return the seconds that all processors together have worked since the machine started."""
    with suppress(OSError, ValueError, IndexError):
        user, nice, system, _idle, _wait, irq, softirq, *_ = map(
            int, (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
        )
        return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return None


def read_memory() -> MemoryUse | None:
    """Return what the machine's memory is used to; None if that is not known."""
    with suppress(OSError, ValueError, KeyError):
        lines = (_PROC / "meminfo").read_text().splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        total = kib["MemTotal"]
        return MemoryUse(total=total << 10, used=(total - kib["MemAvailable"]) << 10)
    return None


class Gpus:
    """The GPUs that NVIDIA's management library (NVML) knows; none where it is not installed."""

    def __init__(self) -> None:
        self._nvml = _load_nvml()

    def read(self) -> tuple[Gpu, ...]:
        """Look at each GPU; one that does not answer is left out."""
        if self._nvml is None:
            return ()
        return tuple(_list_gpus(self._nvml))

    def close(self) -> None:
        """Give the library back."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None


class _Utilization(ctypes.Structure):
    """``nvmlUtilization_t`` of <nvml.h>: percent."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    """``nvmlMemory_t``: bytes."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _ProcessInfo(ctypes.Structure):
    """``nvmlProcessInfo_t``."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def _load_nvml() -> ctypes.CDLL | None:
    for name in _NVML:
        with suppress(OSError, AttributeError):
            nvml = ctypes.CDLL(name)
            if nvml.nvmlInit_v2() == 0:
                return nvml
    return None


def _list_gpus(nvml: ctypes.CDLL) -> Iterator[Gpu]:
    count = ctypes.c_uint()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return
    for index in range(count.value):
        device, busy, memory = ctypes.c_void_p(), _Utilization(), _Memory()
        if (
            nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0
            and nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(busy)) == 0
            and nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
        ):
            yield Gpu(
                busy=busy.gpu / 100,
                used_bytes=memory.used,
                total_bytes=memory.total,
                pids=frozenset(_list_pids(nvml, device)),
            )


def _list_pids(nvml: ctypes.CDLL, device: ctypes.c_void_p) -> Iterator[int]:
    found = (_ProcessInfo * _MOST_PROCESSES)()
    count = ctypes.c_uint(_MOST_PROCESSES)
    if nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, ctypes.byref(count), found) == 0:
        yield from (found[index].pid for index in range(count.value))
