"""Rows of calls written to Parquet and merged there, by DuckDB. Whatever is here blocks.

A file appears under its name only when it is whole and on disk.
"""

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from pilotage.kit.files import sync_folder
from pilotage.monitoring.calls.columns import CallRow, select_read

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SUFFIX = ".parquet"
MEMORY_MB = 512
_Config = dict[str, str | bool | int | float | list[str]]  # as duckdb.connect wants it
CLOSED: _Config = {  # it asks nobody and fetches nothing
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}
_SMALL: _Config = {
    "threads": 1,  # of a core that gateways and engines need as well
    "memory_limit": f"{MEMORY_MB}MB",
    "temp_directory": "",
}
_COPY = "COPY ({rows}) TO {path} (FORMAT parquet, COMPRESSION zstd)"
_NUL = b"\\u0000"  # as JSON writes it
_ENCODER = msgspec.json.Encoder()
_TEXTS = [name for name, kind in CallRow.__annotations__.items() if kind is str]


class DamagedFiles(OSError):  # noqa: N818 - a state of the disk, which merging goes around
    """Files of calls that are not there or cannot be read."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = list(paths)
        super().__init__(f"{len(self.paths)} files of calls cannot be read")


class SegmentWriter:
    """Writes segments, one at a time; DuckDB is loaded for the first."""

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._connection: DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, path: Path, rows: Sequence[CallRow]) -> int:
        """Write rows in their order; return the size of the file.

        Raises ValueError for rows that no file can hold, OSError where it cannot be written.
        """
        import duckdb

        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = path.with_name(f".{path.name}.json")
        try:
            lines.write_bytes(_encode(rows))
            return self._copy(select_read(quote(str(lines))), path)
        except OSError as failed:
            of_rows = isinstance(failed.__cause__, duckdb.DataError | duckdb.ProgrammingError)
            if of_rows:
                raise ValueError(f"{failed}") from failed
            raise
        finally:
            lines.unlink(missing_ok=True)

    def merge(self, path: Path, parts: Sequence[Path]) -> int:
        """Write the rows of other files, one after the other; return the size of the file.

        Raises :class:`DamagedFiles` if some of them cannot be read.
        """
        files = list(map(str, parts))
        try:
            return self._copy(f"FROM {read_files(files)}", path)
        except OSError as failed:
            if damaged := find_damaged(files):
                raise DamagedFiles(map(Path, damaged)) from failed
            raise

    def close(self) -> None:
        """Give back what DuckDB holds."""
        with self._one:
            self._close()

    def _copy(self, rows: str, path: Path) -> int:
        temporary = path.with_name(f".{path.name}")
        try:
            with self._one:
                self._run(_COPY.format(rows=rows, path=quote(str(temporary))))
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
                size = os.fstat(file.fileno()).st_size
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        return size

    def _run(self, statement: str) -> None:
        import duckdb

        if self._connection is None:
            self._connection = duckdb.connect(":memory:", config=CLOSED | _SMALL)
        try:
            self._connection.execute(statement).fetchall()
        except duckdb.Error as failed:
            self._close()  # after some errors a connection answers nothing any more
            raise OSError(f"a file of calls cannot be written: {failed}") from failed

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def read_files(files: Sequence[str]) -> str:
    """Return what stands behind FROM for the rows of files, one after the other."""
    return f"read_parquet([{', '.join(map(quote, files))}], union_by_name = true)"


def find_damaged(files: Sequence[str]) -> list[str]:
    """Return the files that have no readable end; if all have, those that cannot be read."""
    return _list_failing(files, "FROM parquet_file_metadata({})") or _list_failing(
        files, "SELECT max(hash(*COLUMNS(*))) FROM read_parquet({})"
    )


def quote(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _list_failing(files: Sequence[str], statement: str) -> list[str]:
    import duckdb

    waiting, failing = list(files), []
    while waiting:
        with duckdb.connect(":memory:", config=CLOSED | _SMALL) as connection:
            try:
                while waiting:
                    connection.execute(statement.format(quote(waiting[-1]))).fetchall()
                    waiting.pop()
            except duckdb.Error:  # a connection may be of no use after it
                failing.append(waiting.pop())
    return failing


def _encode(rows: Sequence[CallRow]) -> bytes:
    lines = _ENCODER.encode_lines(rows)
    if _NUL not in lines:
        return lines
    return _ENCODER.encode_lines([_clean(row) for row in rows])  # DuckDB's texts have no NUL


def _clean(row: CallRow) -> CallRow:
    texts = {name: _clean_text(getattr(row, name)) for name in _TEXTS}
    return msgspec.structs.replace(row, **texts, flags=[_clean_text(flag) for flag in row.flags])


def _clean_text(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
