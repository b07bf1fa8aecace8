"""Whom TLS trusts: the system's certificates, or those of a file instead of them."""

import hashlib
import ssl
from pathlib import Path

_MAX_KEPT = 64

Stamp = tuple[int, int, int]


class UnreadableCertificates(OSError):  # noqa: N818 - why a connection does not come about
    """A file of certificates is not there or holds none."""


class TlsContexts:
    """TLS contexts for clients, made once for each content of a file of certificates.

    A context takes milliseconds and hundreds of kilobytes. A file that is replaced counts from the
    next connection on.
    """

    def __init__(self) -> None:
        self._system: ssl.SSLContext | None = None
        self._by_content: dict[str, ssl.SSLContext] = {}
        self._by_file: dict[str, tuple[Stamp, ssl.SSLContext]] = {}

    def get(self, ca_file: str) -> ssl.SSLContext:
        """Return the context that trusts a file, "" for the system; raise OSError."""
        if not ca_file:
            if self._system is None:
                self._system = _make_context(None)
            return self._system
        path = Path(ca_file).expanduser()
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            known = self._by_file.get(ca_file)
            if known is not None and known[0] == stamp:
                return known[1]
            context = self._read(path.read_bytes())
        except (OSError, ValueError) as failed:  # ssl.SSLError is an OSError
            raise UnreadableCertificates(
                f"the file {ca_file} holds no certificates that can be read"
            ) from failed
        self._by_file[ca_file] = (stamp, context)
        return context

    def _read(self, content: bytes) -> ssl.SSLContext:
        if not content.strip():
            raise ValueError("empty")  # which ssl would take for "trust the system's"
        digest = hashlib.sha256(content).hexdigest()
        context = self._by_content.get(digest)
        if context is None:
            context = _make_context(content.decode("ascii"))
            if len(self._by_content) >= _MAX_KEPT:
                del self._by_content[next(iter(self._by_content))]
            self._by_content[digest] = context
        return context


def _make_context(certificates: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=certificates)
    context.set_alpn_protocols(["http/1.1"])
    return context
