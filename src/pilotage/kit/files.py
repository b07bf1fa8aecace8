"""Files that are whole or absent, and private where they must be."""

import os
import tempfile
from pathlib import Path


def write_private(path: Path, content: bytes, *, is_durable: bool = True) -> None:
    """Replace a file atomically; only its owner may read it (0600); its folder is made 0700.

    ``is_durable`` False leaves out the wait for the disk, for what a restart makes anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if is_durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until what was created or renamed in a folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
