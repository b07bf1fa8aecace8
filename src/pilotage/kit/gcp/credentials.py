"""Tokens by Google's own library: key files, default credentials, metadata, impersonation.

What a credentials file may make this process call (token services, and for some kinds programs) is
decided by whoever can write it: it is the operator's, as ``GOOGLE_APPLICATION_CREDENTIALS`` is.
"""

import calendar
import threading
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

from pilotage.kit.gcp.tokens import NoToken, Token
from pilotage.kit.gcp.transport import TokenTransport

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
INSTALL_HINT = 'pip install "pilotage[vertex]"'


class GoogleTokens:
    """A source of tokens: of a credentials file, or with "" of the default credentials.

    The file is read again when it has changed.
    """

    def __init__(self, path: str, transport: TokenTransport) -> None:
        self._path = path
        self._transport = transport
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._stamp = (0, 0, 0)

    def fetch(self) -> Token:
        """Return a new token; raise NoToken."""
        try:
            from google.auth import exceptions
        except ImportError:
            raise NoToken("google-auth is not installed", INSTALL_HINT) from None
        with self._lock:
            self._transport.open()
            try:
                credentials = self._load()
                credentials.refresh(self._transport)
            except (exceptions.GoogleAuthError, OSError, ValueError) as failed:
                raise NoToken(_explain(failed)) from failed
            if not credentials.token:
                raise NoToken("the token service sent no token")
            return Token(credentials.token, _microseconds(credentials.expiry))

    def abort(self) -> None:
        """Make a fetch that runs fail now."""
        self._transport.abort()

    def close(self) -> None:
        """Make a fetch that runs fail now, and all that follow."""
        self._transport.close()

    def _load(self) -> Any:  # noqa: ANN401 - one of google-auth's many kinds of credentials
        stamp = _read_stamp(self._path)
        if self._credentials is None or stamp != self._stamp:
            self._credentials = _load_credentials(self._path, self._transport)
            self._stamp = stamp
        return self._credentials


def _load_credentials(path: str, transport: TokenTransport) -> Any:  # noqa: ANN401 - as above
    import google.auth

    if not path:
        credentials, _ = google.auth.default(scopes=SCOPES, request=transport)  # type: ignore[arg-type]
        return credentials
    with warnings.catch_warnings():  # they warn of files that others than the operator can write
        warnings.simplefilter("ignore", DeprecationWarning)
        credentials, _ = google.auth.load_credentials_from_file(  # type: ignore[no-untyped-call]
            str(Path(path).expanduser()), scopes=SCOPES, request=transport
        )
    return credentials


def _read_stamp(path: str) -> tuple[int, int, int]:
    if not path:
        return (0, 0, 0)
    found = Path(path).expanduser().stat()
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _microseconds(expiry: datetime | None) -> int:
    """Return the wall time of google-auth's expiry, which is UTC without saying so."""
    return calendar.timegm(expiry.utctimetuple()) * 1_000_000 if expiry else 0


def _explain(failed: Exception) -> str:
    """Say in one line what google-auth said, without the reply that it carries along."""
    said = failed.args[0] if failed.args else failed
    return f"{type(failed).__name__}: {' '.join(str(said).split())[:300]}"
