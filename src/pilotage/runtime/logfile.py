"""Log files of child processes: appended to, and begun anew when they have grown."""

from pathlib import Path
from typing import IO

MAX_BYTES = 16 << 20


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending; one that is larger than 16 MiB becomes ``NAME.1`` first."""
    if path.exists() and path.stat().st_size > MAX_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")
