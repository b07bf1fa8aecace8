"""The secrets of channels, by reference; never what this installation itself keeps secret."""

import re
from pathlib import Path

from pilotage.core.errors import PilotageError
from pilotage.kit.config import resolve_secret

_SENDABLE = re.compile(r"[\x20-\x7e]{1,2000}")


class SecretReader:
    """Reads secrets; ``folder`` is the data folder, whose files are nobody else's business.

    Whoever sets a channel up chooses both the reference and where the secret is sent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def read(self, reference: str) -> str:
        """Return what a reference names, one line; raise ``invalid_config``, never showing it."""
        kind, _, path = reference.partition(":")
        if kind == "file" and Path(path).resolve().is_relative_to(self._folder):
            raise PilotageError(
                "invalid_config",
                f"{reference} is in the data folder: nothing of it is sent anywhere.",
                hint="Keep the secrets of channels elsewhere.",
            )
        secret = resolve_secret(reference)
        if not _SENDABLE.fullmatch(secret):
            raise PilotageError(
                "invalid_config", f"The secret {reference} is not one line of ASCII."
            )
        return secret
