"""What the certificates of servers are checked with."""

import asyncio
import ssl

from pilotage.core.errors import PilotageError
from pilotage.monitoring.notify.backends.secrets import SecretReader


async def make_context(secrets: SecretReader, ca_file: str, project_id: str) -> ssl.SSLContext:
    """Return what certificates are checked with: a file of a project's, or the system's.

    Raise ``invalid_config`` for a file that holds none. Reading the system's takes 30 ms: it is
    done beside the event loop.
    """
    if not ca_file:
        return await asyncio.to_thread(ssl.create_default_context)
    text = (await secrets.read_file(ca_file, project_id)).decode("ascii", "ignore")
    try:
        return ssl.create_default_context(cadata=text or "none")  # no text would be the system's
    except ssl.SSLError:
        raise PilotageError("invalid_config", f"{ca_file} holds no certificate.") from None
