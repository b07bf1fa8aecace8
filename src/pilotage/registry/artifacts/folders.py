"""Files below a folder, reached without ever following a link out of it.

``gs://BUCKET/PATH`` means the data folder's ``gs/BUCKET/PATH``. Every folder on the way is opened
from the one before it, so what is checked is what is read, whoever moves things meanwhile.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pilotage.core.errors import PilotageError
from pilotage.registry.artifacts.rules import DEEPEST, MOST_FILES, check_path

SCHEME = "gs://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would wait for ever


class Place(NamedTuple):
    """A file or folder below a root: ``parts`` lead there, ``shown`` is how people call it."""

    root: Path
    parts: tuple[str, ...]
    shown: str


def locate_uri(gs: Path, uri: str) -> Place:
    """Return where ``gs://BUCKET/PATH`` lies below a folder; raise ``invalid_request``."""
    if not uri.startswith(SCHEME):
        raise PilotageError(
            "invalid_request", f"{uri[:200]!r} is not gs://BUCKET/PATH.", param="uri"
        )
    bucket, _, path = uri.removeprefix(SCHEME).rstrip("/").partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise PilotageError("invalid_request", f"{bucket[:80]!r} is no bucket.", param="uri")
    parts = check_path(path).split("/") if path else []
    return Place(gs, (bucket, *parts), uri)


def list_place(place: Place) -> Sequence[str]:
    """Return the paths of the files below a folder, in order; [""] for a place that is a file.

    Raises ``not_found`` if nothing is there, ``invalid_request`` for links and other things that
    are neither files nor folders.
    """
    if not place.root.is_dir():  # nobody has put anything there yet
        raise _absent(place, "")
    with _parent(place) as folder:
        try:
            kind = os.stat(place.parts[-1], dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            raise _absent(place, "") from None
        if stat.S_ISREG(kind):
            return [""]
        if not stat.S_ISDIR(kind):
            raise _no_file(place, "")
        found: list[str] = []
        below = os.open(place.parts[-1], _FOLDER, dir_fd=folder)
        try:
            for path in _walk(place, below, ""):
                if len(found) == MOST_FILES:
                    raise PilotageError(
                        "invalid_request", f"{place.shown} has more than {MOST_FILES} files."
                    )
                found.append(path)
        finally:
            os.close(below)
    if not found:
        raise _absent(place, "")
    return sorted(found)


@contextmanager
def open_below(place: Place, path: str) -> Iterator[BinaryIO]:
    """Open a file that :func:`list_place` returned."""
    parts = (*place.parts, *path.split("/")) if path else place.parts
    with _parent(Place(place.root, parts, place.shown)) as folder:
        try:
            descriptor = os.open(parts[-1], _FILE, dir_fd=folder)
        except FileNotFoundError:
            raise _absent(place, path) from None
        except OSError as failed:
            if failed.errno == errno.ELOOP:
                raise _no_file(place, path) from None
            raise _unreadable(place, path, failed) from None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _no_file(place, path)
            yield file


@contextmanager
def _parent(place: Place) -> Iterator[int]:
    """Open the folder that the last part is in, part by part."""
    folder = os.open(place.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in place.parts[:-1]:
            try:
                deeper = os.open(part, _FOLDER, dir_fd=folder)
            except FileNotFoundError:
                raise _absent(place, "") from None
            except OSError as failed:
                if failed.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise _no_file(place, part) from None
                raise _unreadable(place, part, failed) from None
            os.close(folder)
            folder = deeper
        yield folder
    finally:
        os.close(folder)


def _walk(place: Place, folder: int, prefix: str) -> Iterator[str]:
    if prefix.count("/") > DEEPEST:
        raise PilotageError("invalid_request", f"{place.shown} is deeper than {DEEPEST} folders.")
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries)
    for name, kind in found:
        path = check_path(f"{prefix}{name}")
        if stat.S_ISDIR(kind):
            below = os.open(name, _FOLDER, dir_fd=folder)
            try:
                yield from _walk(place, below, f"{path}/")
            finally:
                os.close(below)
        elif stat.S_ISREG(kind):
            yield path
        else:
            raise _no_file(place, path)


def _name(place: Place, path: str) -> str:
    return f"{place.shown.rstrip('/')}/{path}" if path else place.shown


def _absent(place: Place, path: str) -> PilotageError:
    return PilotageError(
        "not_found",
        f"There is nothing at {_name(place, path)}.",
        hint="gs://BUCKET/PATH is gs/BUCKET/PATH in the data folder: put the files there.",
        param="uri",
    )


def _no_file(place: Place, path: str) -> PilotageError:
    return PilotageError(
        "invalid_request",
        f"{_name(place, path)} is a link or a device: only files and folders are read.",
        hint="Put the file itself there.",
        param="uri",
    )


def _unreadable(place: Place, path: str, failed: OSError) -> PilotageError:
    return PilotageError(
        "invalid_request", f"{_name(place, path)} cannot be read: {failed.strerror}.", param="uri"
    )
