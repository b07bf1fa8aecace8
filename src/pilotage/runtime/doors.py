"""Listening sockets: opened once by the parent process, inherited by whoever serves them."""

import asyncio
import ipaddress
import logging
import socket
import ssl
from pathlib import Path

from pilotage.core.errors import PilotageError
from pilotage.kit.config import Settings

_LOG = logging.getLogger("pilotage.doors")
BACKLOG = 2048
CERTIFICATE_LOOK_S = 1.0


def open_gateway_door(settings: Settings) -> socket.socket:
    """Listen for calls; raise ``invalid_config`` if it cannot or must not.

    Keys and prompts go over this door: without a certificate it is open to this machine only,
    unless the settings say that something before it sees to that.
    """
    gateway = settings.gateway
    if bool(gateway.tls_certificate) != bool(gateway.tls_key):
        raise PilotageError(
            "invalid_config",
            "gateway.tls_certificate and gateway.tls_key must both be set.",
            hint="Set PILOTAGE_GATEWAY_TLS_CERTIFICATE and PILOTAGE_GATEWAY_TLS_KEY.",
        )
    if gateway.tls_certificate:
        open_certificate(gateway.tls_certificate, gateway.tls_key)
    listener = open_listener("gateway", gateway.host, gateway.port)
    if not gateway.tls_certificate and gateway.plain_http == "loopback":
        _refuse_exposed(
            listener,
            f"gateway.host: {gateway.host} can be reached from outside, and there is no "
            "certificate: keys and prompts would travel in the clear.",
            "Set gateway.tls_certificate and gateway.tls_key; or, behind something that "
            "encrypts, set gateway.plain_http to anywhere.",
        )
    return listener


def open_control_door(settings: Settings) -> socket.socket:
    """Listen for the control API; raise ``invalid_config`` if it cannot or must not."""
    control = settings.control
    listener = open_listener("control", control.host, control.port)
    if control.plain_http == "loopback":
        _refuse_exposed(
            listener,
            f"control.host: {control.host} can be reached from outside: credentials would "
            "travel in the clear.",
            "Listen on 127.0.0.1 behind a proxy that encrypts; or, where something else sees to "
            "that, set control.plain_http to anywhere.",
        )
    return listener


def open_listener(name: str, host: str, port: int) -> socket.socket:
    """Bind and listen; raise ``invalid_config`` that names the setting if that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as failed:
        raise PilotageError(
            "invalid_config", f"{name}.host: {host} is no address: {failed.strerror}."
        ) from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as failed:
        listener.close()
        raise PilotageError(
            "invalid_config",
            f"{name}.port: {host}:{port} cannot be used: {failed.strerror}.",
            hint=f"Stop what uses it, or set PILOTAGE_{name.upper()}_PORT.",
        ) from None
    listener.setblocking(False)  # noqa: FBT003 - the socket module's own signature
    return listener


def make_url(listener: socket.socket, *, is_tls: bool = False) -> str:
    """Return the URL of what listens."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class Certificate:
    """The certificate of the gateway's door, taken anew when its files change."""

    def __init__(self, certificate: str, key: str) -> None:
        self._files = (certificate, key)
        self._stamp = self._read_stamp()
        self._problem = ""
        self.context = open_certificate(certificate, key)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(CERTIFICATE_LOOK_S)
            self.refresh()

    def refresh(self) -> bool:
        """Take over changed files for new connections; a pair that does not fit changes nothing.

        Return whether there is a new certificate.
        """
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return False
        try:
            open_certificate(*self._files)  # in a context of its own: half a pair ruins this one
            self.context.load_cert_chain(*self._files)
        except (PilotageError, OSError) as wrong:  # an ssl.SSLError is one, too
            if str(wrong) != self._problem:
                _LOG.error("the old certificate stays in use: %s", wrong)
            self._problem = str(wrong)
            return False
        self._stamp, self._problem = stamp, ""
        _LOG.warning("a new certificate is in use: %s", self._files[0])
        return True

    def _read_stamp(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_read_stamp(path) for path in self._files)


def open_certificate(certificate: str, key: str) -> ssl.SSLContext:
    """Return what TLS connections are accepted with, 1.2 at least.

    Raise ``invalid_config`` that names the file which is at fault.
    """
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            Path(path).read_bytes()
        except OSError as failed:
            raise PilotageError(
                "invalid_config", f"gateway.{name}: {path} cannot be read: {failed.strerror}."
            ) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, _refuse_password)
    except (ssl.SSLError, ValueError) as wrong:
        raise PilotageError(
            "invalid_config",
            f"gateway.tls_certificate: {certificate} and {key} are no certificate and its key: "
            f"{getattr(wrong, 'reason', '') or wrong}.",
            hint="Both must be PEM without a password, the certificate before its chain.",
        ) from None
    return context


def _refuse_password() -> str:
    raise ValueError("the key has a password")


def _read_stamp(path: str) -> tuple[int, int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _refuse_exposed(listener: socket.socket, detail: str, hint: str) -> None:
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        listener.close()
        raise PilotageError("invalid_config", detail, hint=hint)
