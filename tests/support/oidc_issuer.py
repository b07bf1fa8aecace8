"""An issuer of OpenID Connect tokens on loopback HTTP: discovery, keys that rotate, tokens."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

Key = RSAPrivateKey | EllipticCurvePrivateKey


class OidcIssuer:
    """What one issuer says; ``asked`` counts requests by path, ``is_away`` answers 503."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Key] = {}
        self.more_keys: list[dict[str, Any]] = []
        self.discovery: dict[str, Any] = {}
        self.asked: dict[str, int] = {}
        self.is_away = False
        self.is_asked = asyncio.Event()  # once a request is here
        self.gate = asyncio.Event()  # replies wait for it
        self.gate.set()

    def add_rsa(self, kid: str, bits: int = 2048) -> RSAPrivateKey:
        """Sign with one more RSA key."""
        key = rsa.generate_private_key(65537, bits)
        self.keys[kid] = key
        return key

    def add_ec(self, kid: str) -> None:
        """Sign with one more P-256 key."""
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def sign(self, kid: str, claims: dict[str, Any], /, **headers: Any) -> str:  # noqa: ANN401
        """Return a token that a key of this issuer signed."""
        key = self.keys[kid]
        algorithm = "RS256" if isinstance(key, RSAPrivateKey) else "ES256"
        return jwt.encode(claims, key, algorithm, headers={"kid": kid} | headers)

    def list_keys(self) -> list[dict[str, Any]]:
        """Return the public keys as a JWKS lists them."""
        listed = []
        for kid, key in self.keys.items():
            make: Any = RSAAlgorithm if isinstance(key, RSAPrivateKey) else ECAlgorithm
            listed.append(make.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig"})
        return listed + self.more_keys

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close; whoever leaves before that gets no answer."""
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1].decode()
        self.asked[path] = self.asked.get(path, 0) + 1
        self.is_asked.set()
        await self.gate.wait()
        documents: dict[str, Any] = {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
            }
            | self.discovery,
            "/keys": {"keys": self.list_keys()},
        }
        found = documents.get(path)
        status = b"503 Away" if self.is_away else b"200 OK" if found else b"404 Not Found"
        body = json.dumps(found).encode()
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n" % (status, len(body)))
        writer.write(b"content-type: application/json\r\nconnection: close\r\n\r\n" + body)
        await writer.drain()


@asynccontextmanager
async def open_oidc_issuer() -> AsyncIterator[OidcIssuer]:
    """Open an issuer with one RSA key, ``one``."""
    issuer = OidcIssuer()
    issuer.add_rsa("one")
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield issuer
