"""What the certificates of servers are checked with."""

import ssl

from pilotage.core.errors import PilotageError


def make_context(ca_file: str) -> ssl.SSLContext:
    """Return what certificates are checked with; raise ``invalid_config`` for no such file."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as failed:  # SSLError is one
        why = failed.strerror or "it holds no certificate"
        raise PilotageError(
            "invalid_config", f"The certificates {ca_file} cannot be read: {why}."
        ) from None
