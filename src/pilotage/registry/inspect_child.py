"""The child process that reads untrusted files.

Run as ``python -I -m pilotage.registry.inspect_child`` with what to read ("model" or "dataset"),
the memory limit in bytes and the CPU limit in seconds; what is asked comes as JSON on stdin. Writes
one JSON object to stdout: ``{"found": {...}}`` or ``{"refused": "why"}``.
"""

import dataclasses
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Limit this process, then read what it is told."""
    kind, memory_bytes, cpu_s = sys.argv[1:]
    for limited, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),  # it may write to its pipe, to no file
        (resource.RLIMIT_CPU, int(cpu_s)),
        (resource.RLIMIT_AS, int(memory_bytes)),
    ):
        resource.setrlimit(limited, (limit, limit))
    sys.stdout.write(json.dumps(_answer(kind, json.load(sys.stdin), int(memory_bytes))))


def _answer(kind: str, asked: Any, memory_bytes: int) -> dict[str, object]:  # noqa: ANN401 - JSON
    try:
        return {"found": (_read_dataset if kind == "dataset" else _read_model)(asked)}
    except ValueError as wrong:
        return {"refused": str(wrong)}
    except OSError as failed:
        return {"refused": f"it cannot be read: {os.strerror(failed.errno or 0)}"}
    except MemoryError:
        return {"refused": f"reading it takes more than {memory_bytes >> 20} MiB of memory"}


def _read_model(files: dict[str, str]) -> dict[str, object]:
    from pilotage.registry.survey import survey

    inspection, pickles = survey({path: Path(file) for path, file in files.items()})
    return {"inspection": dataclasses.asdict(inspection), "pickles": pickles}


def _read_dataset(asked: dict[str, Any]) -> dict[str, object]:
    from pilotage.registry.datasets.records import check_records

    return dataclasses.asdict(check_records(asked))


if __name__ == "__main__":
    main()
