"""The child process that reads one untrusted file.

Run as ``python -I -m pilotage.registry.inspect_child`` with the memory limit in bytes, the CPU
limit in seconds and the path. Writes one JSON object to stdout: ``{"info": {...}}`` or
``{"refused": "why"}``.
"""

import dataclasses
import json
import os
import resource
import sys
from pathlib import Path

from pilotage.registry.gguf import read_gguf


def main() -> None:
    """Limit this process, then read the file."""
    memory_bytes, cpu_s, path = sys.argv[1:]
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),  # it may write to its pipe, to no file
        (resource.RLIMIT_CPU, int(cpu_s)),
        (resource.RLIMIT_AS, int(memory_bytes)),
    ):
        resource.setrlimit(kind, (limit, limit))
    sys.stdout.write(json.dumps(_inspect(Path(path), int(memory_bytes))))


def _inspect(path: Path, memory_bytes: int) -> dict[str, object]:
    try:
        return {"info": dataclasses.asdict(read_gguf(path))}
    except ValueError as wrong:
        return {"refused": str(wrong)}
    except OSError as failed:
        return {"refused": f"it cannot be read: {os.strerror(failed.errno or 0)}"}
    except MemoryError:
        return {
            "refused": f"reading its metadata takes more than {memory_bytes >> 20} MiB of memory"
        }


if __name__ == "__main__":
    main()
