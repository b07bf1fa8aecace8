"""A mail server on loopback that keeps what it gets, and can be told to misbehave."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import NamedTuple, Self, cast


class Mail(NamedTuple):
    """A mail that was taken, and its envelope."""

    sender: str
    to: tuple[str, ...]
    content: EmailMessage


class SmtpServer:
    """Speaks enough SMTP for one client after the other; listens on a free port of 127.0.0.1.

    ``tls`` holds the server's certificate: for STARTTLS, or from the start (``is_tls``).
    ``refuse`` says what it answers to a line instead of doing it, "" for what it would do;
    ``hangs_at`` is the word after which it says nothing any more, ``drip`` makes it say a letter
    at a time and never end.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        is_tls: bool = False,
        refuse: Callable[[str], str] = lambda _: "",
        hangs_at: str = "",
        drip: bool = False,
        greeting: str = "220 here",
    ) -> None:
        self._tls, self._is_tls = tls, is_tls
        self.refuse = refuse
        self.hangs_at = hangs_at
        self.drip = drip
        self.greeting = greeting
        self.mails: list[Mail] = []
        self.lines: list[str] = []
        self.signed_in: list[tuple[str, str]] = []
        self.encrypted: list[bool] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The address for a channel."""
        return f"smtp://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._tls if self._is_tls else None
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await _Talk(self, reader, writer, self._tls, is_tls=self._is_tls).run()
        except asyncio.CancelledError:
            return  # the server closes
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


class _Talk:
    """One conversation."""

    def __init__(
        self,
        server: SmtpServer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        tls: ssl.SSLContext | None,
        *,
        is_tls: bool,
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._tls = tls
        self._is_tls = is_tls
        self._sender = ""
        self._to: list[str] = []

    async def run(self) -> None:
        await self._say(self._server.greeting)
        while line := (await self._reader.readuntil(b"\n")).decode().rstrip("\r\n"):
            self._server.lines.append(line)
            if not await self._answer(line):
                return

    async def _answer(self, line: str) -> bool:
        """Answer a line; return whether the conversation goes on."""
        word = line.partition(" ")[0].upper()
        if self._server.hangs_at == word:
            await asyncio.Event().wait()
        if refused := self._server.refuse(line):
            await self._say(refused)
        elif word in {"MAIL", "RCPT"}:
            await self._take_address(word, line)
        elif word == "DATA":
            await self._take_mail()
        elif word == "STARTTLS" and self._tls is not None:
            await self._say("220 go on")
            await self._writer.start_tls(self._tls)
            self._is_tls = True
        elif word == "AUTH":
            await self._sign_in(line)
        elif word == "QUIT":
            await self._say("221 bye")
            return False
        else:
            offered = "250-STARTTLS\r\n" if self._tls and not self._is_tls else ""
            await self._say(f"250-here\r\n{offered}250-AUTH PLAIN LOGIN\r\n250 8BITMIME")
        return True

    async def _take_address(self, word: str, line: str) -> None:
        address = line[line.index("<") + 1 : line.index(">")]
        if word == "MAIL":
            self._sender, self._to = address, []
        else:
            self._to.append(address)
        await self._say("250 fine")

    async def _take_mail(self) -> None:
        await self._say("354 go on")
        lines = []
        while (line := await self._reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line.removeprefix(b"."))
        content = message_from_bytes(b"".join(lines), policy=policy.default)
        mail = Mail(self._sender, tuple(self._to), content)
        self._server.mails.append(mail)
        self._server.encrypted.append(self._is_tls)
        if self._server.hangs_at == ".":
            await asyncio.Event().wait()
        await self._say("250 taken")

    async def _sign_in(self, line: str) -> None:
        way, _, first = line.removeprefix("AUTH ").partition(" ")
        if way == "PLAIN":
            _, name, password = base64.b64decode(first).decode().split("\0")
        else:
            await self._say("334 VXNlcm5hbWU6")
            name = base64.b64decode(await self._reader.readuntil(b"\n")).decode()
            await self._say("334 UGFzc3dvcmQ6")
            password = base64.b64decode(await self._reader.readuntil(b"\n")).decode()
        self._server.signed_in.append((name, password))
        await self._say("235 hello")

    async def _say(self, text: str) -> None:
        if self._server.drip:
            while True:
                self._writer.write(b"2")
                await self._writer.drain()
                await asyncio.sleep(0.01)
        self._writer.write(f"{text}\r\n".encode())
        await self._writer.drain()
