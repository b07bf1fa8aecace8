"""``credentials.toml``: what the first start makes for its owner, readable by nobody else."""

import tomllib
from pathlib import Path

import msgspec

from pilotage.core.errors import PilotageError
from pilotage.kit.files import write_private

_TEMPLATE = """\
# Written by pilotage at its first start. Whoever reads this file administers the installation.

[admin]
credential = "{admin}"   # for the control API, /api/v1

[default]
tenant = "default"
api_key = "{api_key}"    # for the gateway, /v1
"""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """The administrator's credential and an API key of the default tenant."""

    admin: str
    api_key: str


def write_credentials(path: Path, *, admin: str, api_key: str) -> None:
    """Write the file (0600)."""
    write_private(path, _TEMPLATE.format(admin=admin, api_key=api_key).encode())


def read_credentials(path: Path) -> Credentials:
    """Read the file; raise ``invalid_credential`` that says how to get one."""
    try:
        content = tomllib.loads(path.read_text())
        return Credentials(
            admin=content["admin"]["credential"], api_key=content["default"]["api_key"]
        )
    except FileNotFoundError:
        raise PilotageError(
            "invalid_credential", f"There is no {path}.", hint="Run: pilotage init"
        ) from None
    except (OSError, tomllib.TOMLDecodeError, KeyError) as broken:
        raise PilotageError("invalid_credential", f"{path} cannot be read: {broken}.") from None
