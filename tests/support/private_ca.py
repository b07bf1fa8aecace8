"""A certificate authority of our own, and servers' certificates by it."""

import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY = timedelta(days=1)


class PrivateAuthority:
    """Issues certificates that only its own ``pem`` vouches for."""

    def __init__(self, name: str = "private authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._serial = 1
        own = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.pem = own.public_bytes(serialization.Encoding.PEM).decode()

    def write(self, path: Path) -> str:
        """Write the authority's own certificate to a file."""
        path.write_text(self.pem)
        return str(path)

    def serve_as(self, *hosts: str) -> ssl.SSLContext:
        """Return the TLS context of a server that is these hosts; it notes the names it is asked.

        They are in the context's attribute ``asked``.
        """
        signed, secret = self._issue(hosts)
        context = NotingContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(signed + secret)
            file.flush()
            context.load_cert_chain(file.name)
        context.asked = []
        context.sni_callback = _note_name
        return context

    def write_pair(self, certificate: Path, key: Path, *hosts: str) -> None:
        """Write a new certificate of these hosts, and its key, to files."""
        signed, secret = self._issue(hosts)
        certificate.write_bytes(signed)
        key.write_bytes(secret)

    def _issue(self, hosts: Sequence[str]) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        signed = self._sign(subject, key, names)
        return signed.public_bytes(serialization.Encoding.PEM), secret

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        self._serial += 1
        now = datetime.now(UTC)
        identity = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(self._serial)
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


class NotingContext(ssl.SSLContext):
    """A server's TLS context with the names it was asked for."""

    asked: list[str | None]


def _note_name(sock: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    assert isinstance(context, NotingContext)
    context.asked.append(name)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
