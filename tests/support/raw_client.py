"""A client that is only a socket, so that it can leave, or stop reading, in every way there is."""

import asyncio
import json
import socket
import struct
from types import TracebackType
from typing import Any, Self

from gateway_harness import PATIENCE_S, GatewayProcess


class RawClient:
    """One connection to a gateway, with the world's key."""

    def __init__(self, gateway: GatewayProcess, receive_buffer: int | None = None) -> None:
        self._secret = gateway.world.secret
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect(("127.0.0.1", gateway.port))
        self._socket.setblocking(False)
        self.seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    async def post(self, body: dict[str, Any], **headers: str) -> None:
        """Send a chat request; an underscore in a header's name is a hyphen."""
        await self.send(self.make_post(body, **headers))

    def make_post(self, body: dict[str, Any], **headers: str) -> bytes:
        """Return the bytes of a chat request."""
        payload = json.dumps(body).encode()
        lines = {
            "host": "gateway",
            "authorization": f"Bearer {self._secret}",
            "content-length": str(len(payload)),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + payload

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read_until(self, marker: bytes) -> bytes:
        """Read on until something was seen; return all that was seen."""
        async with asyncio.timeout(PATIENCE_S):
            while marker not in self.seen:
                part = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
                if not part:
                    raise AssertionError(f"{marker!r} never came, but {self.seen[-500:]!r}")
                self.seen += part
        return self.seen

    async def read_all(self) -> bytes:
        """Read to the end of the connection, however it ends."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while part := await asyncio.get_running_loop().sock_recv(self._socket, 65536):
                    self.seen += part
            except ConnectionResetError:
                pass
        return self.seen

    def leave(self) -> None:
        """Close with a FIN, whatever was left unread."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Close with an RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
