"""The root keys of an installation: a file (0600) of numbered keys, of which the newest wraps.

Each line is a number and 32 bytes in base64. Older keys stay, because copies of the database may
hold data keys that they wrapped. The file is replaced as a whole, so it is never half-written.
"""

import base64
import binascii
import stat
from collections.abc import Mapping
from pathlib import Path

from pilotage.core.errors import PilotageError
from pilotage.kit.files import write_private
from pilotage.kit.sealing import KEY_BYTES, make_key, seal, unseal

_TITLE = (
    "# Root keys of a Pilotage installation. Whoever has them opens all that is sealed in it.\n"
)
_SHARED = stat.S_IRWXG | stat.S_IRWXO


class RootKeys:
    """The keys of one file, in memory for as long as this object."""

    def __init__(self, path: Path, keys: Mapping[int, bytes]) -> None:
        self.path = path
        self._keys = dict(keys)

    @property
    def newest(self) -> int:
        """The number of the key that wraps."""
        return max(self._keys)

    @property
    def numbers(self) -> list[int]:
        """The numbers of all keys."""
        return sorted(self._keys)

    def wrap(self, owner: str, purpose: str, key: bytes) -> bytes:
        """Encrypt a data key with the newest root key."""
        return seal(self._keys[self.newest], self.newest, owner, purpose, key)

    def unwrap(self, number: int, owner: str, purpose: str, wrapped: bytes) -> bytes:
        """Decrypt a data key; raise ``invalid_config`` if this file's keys do not open it."""
        try:
            return unseal(self._keys[number], owner, purpose, wrapped)
        except (KeyError, ValueError):
            raise PilotageError(
                "invalid_config",
                f"Root key {number} of {self.path} does not open a data key of {owner or 'this'}.",
                hint=f"Put the root keys that belong to this database back into {self.path}.",
            ) from None

    def add(self) -> int:
        """Write one key more to the file; return its number. It wraps from now on."""
        number = self.newest + 1
        keys = self._keys | {number: make_key()}
        _write(self.path, keys)
        self._keys = keys
        return number


def open_root_keys(path: Path) -> RootKeys:
    """Read the file; make it with a first key if there is none.

    Raises ``invalid_config`` if others may read it or if it cannot be understood.
    """
    if not path.exists():
        keys = {1: make_key()}
        _write(path, keys)
        return RootKeys(path, keys)
    check_private(path)
    return RootKeys(path, _read(path))


def check_private(path: Path) -> None:
    """Raise ``invalid_config``, naming chmod, if a key file is not its owner's alone."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _SHARED:
        raise PilotageError(
            "invalid_config",
            f"{path} can be read or written by others (mode {mode:04o}).",
            hint=f"Run: chmod 600 {path}",
        )


def _read(path: Path) -> dict[int, bytes]:
    keys: dict[int, bytes] = {}
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            if line.strip() and not line.startswith("#"):
                number, text = line.split()
                keys[int(number)] = base64.b64decode(text, validate=True)
    except OSError as failed:
        raise _broken(path, failed.strerror or "it cannot be read") from None
    except (ValueError, binascii.Error):
        raise _broken(path, "a line is not a number and a key in base64") from None
    if not keys or min(keys) < 1 or any(len(key) != KEY_BYTES for key in keys.values()):
        raise _broken(path, f"it needs numbered keys of {KEY_BYTES} bytes")
    return keys


def _write(path: Path, keys: Mapping[int, bytes]) -> None:
    lines = [f"{number} {base64.b64encode(keys[number]).decode()}\n" for number in sorted(keys)]
    write_private(path, (_TITLE + "".join(lines)).encode())


def _broken(path: Path, why: str) -> PilotageError:
    return PilotageError(
        "invalid_config",
        f"The root keys in {path} cannot be read: {why}.",
        hint="Put the file back as it was, from your backup of the keys.",
    )
