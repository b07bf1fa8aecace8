"""A mail client of a few commands (RFC 5321), whose connection goes where the egress policy says.

The standard library's is synchronous, and each of its reads has a time limit of its own: a server
that answers a letter at a time holds it for hours. Here whoever calls limits the whole.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

MAX_REPLY_LINES = 100
CONNECT_S = 3.0  # a dead one of several addresses is left in time for the next
_LINE = re.compile(r"(\d{3})([ -])?(.*)", re.DOTALL)


class Reply(NamedTuple):
    """What a mail server answered."""

    code: int
    text: str

    @property
    def is_good(self) -> bool:
        """Say whether it did what was asked."""
        return 200 <= self.code < 400


class SmtpError(Exception):
    """A mail server refused, or said what is no SMTP; ``said`` are its own words."""

    def __init__(self, problem: str, said: str = "") -> None:
        self.said = said
        super().__init__(problem)


@asynccontextmanager
async def open_smtp(
    host: str, addresses: Sequence[str], port: int, tls: ssl.SSLContext | None
) -> AsyncIterator["SmtpClient"]:
    """Connect to the first address that answers; encrypted from the start by ``tls``.

    Certificates name ``host``. At the end nobody waits for a goodbye: what was said has been
    answered.
    """
    reader, writer = await _connect(host, addresses, port, tls)
    try:
        client = SmtpClient(host, reader, writer)
        await client.greet()
        yield client
        writer.write(b"QUIT\r\n")
    finally:
        writer.transport.abort()


async def _connect(
    host: str, addresses: Sequence[str], port: int, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    *others, last = addresses
    name = host if tls else None
    for address in others:
        try:
            async with asyncio.timeout(CONNECT_S):
                return await asyncio.open_connection(address, port, ssl=tls, server_hostname=name)
        except OSError:  # TimeoutError is one
            continue
    return await asyncio.open_connection(last, port, ssl=tls, server_hostname=name)


class SmtpClient:
    """One conversation with a mail server."""

    def __init__(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._abilities: dict[str, str] = {}

    async def greet(self) -> None:
        """Hear who is there, and what it can."""
        self._expect(await self._read(), "the greeting")
        await self._hello()

    async def start_tls(self, tls: ssl.SSLContext) -> None:
        """Encrypt the connection; raise SmtpError if the server does not offer that."""
        if "STARTTLS" not in self._abilities:
            raise SmtpError("the server offers no STARTTLS")
        await self._ask("STARTTLS")
        if await self._has_more():  # somebody in between would speak as if encrypted
            raise SmtpError("the server went on in the clear after STARTTLS")
        await self._writer.start_tls(tls, server_hostname=self._host)
        await self._hello()  # what it could before counts for nothing

    async def sign_in(self, username: str, password: str) -> None:
        """Sign in by AUTH PLAIN (RFC 4616), or LOGIN where the server knows no other."""
        ways = self._abilities.get("AUTH", "").split()
        if "PLAIN" in ways or "LOGIN" not in ways:
            both = _encode(f"\0{username}\0{password}")
            await self._ask(f"AUTH PLAIN {both}", shown="AUTH")
            return
        await self._ask("AUTH LOGIN")
        await self._ask(_encode(username), shown="AUTH")
        await self._ask(_encode(password), shown="AUTH")

    async def send(self, sender: str, to: Sequence[str], mail: bytes) -> dict[str, int]:
        """Send a mail; return the recipients that were refused, and the code of each.

        Raise SmtpError if the server does not take the mail. None is sent if all are refused.
        """
        await self._ask(f"MAIL FROM:<{sender}>")
        refused: dict[str, int] = {}
        for address in to:
            reply = await self._say(f"RCPT TO:<{address}>")
            if not reply.is_good:
                refused[address] = reply.code
        if len(refused) == len(to):
            return refused
        await self._ask("DATA")
        self._write(stuff_dots(mail) + b".\r\n")
        self._expect(await self._read(), "the mail")
        return refused

    async def _hello(self) -> None:
        reply = await self._say("EHLO pilotage")
        if not reply.is_good:
            reply = await self._ask("HELO pilotage")
        words = (line.partition(" ") for line in reply.text.splitlines()[1:])
        self._abilities = {name.upper(): rest.upper() for name, _, rest in words}

    async def _ask(self, line: str, shown: str = "") -> Reply:
        """Say a line; raise SmtpError unless the answer is good. ``shown`` stands for a secret."""
        return self._expect(await self._say(line), shown or line)

    def _expect(self, reply: Reply, what: str) -> Reply:
        if not reply.is_good:
            raise SmtpError(f"{what}: {reply.code}", reply.text)
        return reply

    async def _say(self, line: str) -> Reply:
        self._write(f"{line}\r\n".encode())
        return await self._read()

    def _write(self, data: bytes) -> None:
        self._writer.write(data)

    async def _has_more(self) -> bool:
        """Say whether there is more to read at this moment."""
        try:
            async with asyncio.timeout(0):
                return bool(await self._reader.read(1))
        except TimeoutError:
            return False

    async def _read(self) -> Reply:
        """Read a reply of one line or more; raise SmtpError for what is none."""
        await self._writer.drain()
        said: list[str] = []
        for _ in range(MAX_REPLY_LINES):
            try:
                raw = await self._reader.readuntil(b"\n")
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                raise SmtpError("the server closed the connection or says no SMTP") from None
            found = _LINE.fullmatch(raw.decode("ascii", "replace").rstrip("\r\n"))
            if found is None:
                raise SmtpError("the server says no SMTP")
            said.append("".join(letter for letter in found[3] if letter.isprintable()))
            if found[2] != "-":
                return Reply(int(found[1]), "\n".join(said))
        raise SmtpError("the server's reply has no end")


def stuff_dots(mail: bytes) -> bytes:
    """Return a mail as DATA takes it: lines end in CRLF, and no line is a dot alone (4.5.2)."""
    lines = mail.replace(b"\r\n", b"\n").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
